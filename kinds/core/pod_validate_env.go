package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// What the downward API shows of a pod: in variables, in files, and at all.
var (
	envFieldPaths = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
		"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
	volumeFieldPaths = sets.New("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid")
	knownFieldPaths  = envFieldPaths.Union(volumeFieldPaths).Insert("spec.restartPolicy", "spec.schedulerName", "status.phase")

	resourceFieldNames = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory"}
	cpuDivisors  = sets.New("1m", "1")
	sizeDivisors = sets.New("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
)

func (c *podCheck) checkEnv(vars []corev1.EnvVar, at *kinds.Path) {
	for i := range vars {
		v, here := &vars[i], at.Index(i)
		if c.NonEmpty(here.Child("name"), v.Name) {
			c.Each(here.Child("name"), v.Name, validation.IsRelaxedEnvVarName(v.Name))
		}
		if v.ValueFrom != nil {
			c.checkEnvSource(v, here.Child("valueFrom"))
		}
	}
}

// checkEnvSource wants exactly one source, and no literal value beside it.
func (c *podCheck) checkEnvSource(v *corev1.EnvVar, at *kinds.Path) {
	from, count := v.ValueFrom, 0
	if from.FieldRef != nil {
		count++
		c.checkFieldRef(from.FieldRef, envFieldPaths, at.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		count++
		c.checkResourceFieldRef(from.ResourceFieldRef, false, at.Child("resourceFieldRef"))
	}
	if from.ConfigMapKeyRef != nil {
		count++
		c.checkKey(from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key, at.Child("configMapKeyRef"))
	}
	if from.SecretKeyRef != nil {
		count++
		c.checkKey(from.SecretKeyRef.Name, from.SecretKeyRef.Key, at.Child("secretKeyRef"))
	}
	if from.FileKeyRef != nil {
		count++
		c.checkFileKey(from.FileKeyRef, at.Child("fileKeyRef"))
	}
	switch {
	case count == 0:
		c.Invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		c.Invalid(at, "", "may not be specified when `value` is not empty")
	case count > 1:
		c.Invalid(at, "", "may not have more than one field specified at a time")
	}
}

func (c *podCheck) checkKey(name, key string, at *kinds.Path) {
	c.Each(at.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if c.NonEmpty(at.Child("key"), key) {
		c.Each(at.Child("key"), key, validation.IsConfigMapKey(key))
	}
}

func (c *podCheck) checkFileKey(s *corev1.FileKeySelector, at *kinds.Path) {
	if c.NonEmpty(at.Child("key"), s.Key) {
		c.Each(at.Child("key"), s.Key, validation.IsRelaxedEnvVarName(s.Key))
	}
	if c.NonEmpty(at.Child("volumeName"), s.VolumeName) {
		c.label(at.Child("volumeName"), s.VolumeName)
	}
	if c.NonEmpty(at.Child("path"), s.Path) {
		c.noBacksteps(at.Child("path"), s.Path)
	}
}

func (c *podCheck) checkEnvFrom(sources []corev1.EnvFromSource, at *kinds.Path) {
	for i := range sources {
		source, here := &sources[i], at.Index(i)
		if source.Prefix != "" {
			c.Each(here.Child("prefix"), source.Prefix, validation.IsRelaxedEnvVarName(source.Prefix))
		}
		count := 0
		if source.ConfigMapRef != nil {
			count++
			c.envObject(source.ConfigMapRef.Name, here.Child("configMapRef").Child("name"))
		}
		if source.SecretRef != nil {
			count++
			c.envObject(source.SecretRef.Name, here.Child("secretRef").Child("name"))
		}
		// Upstream reports these two at the list.
		switch count {
		case 0:
			c.Invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")
		case 2:
			c.Invalid(at, "", "may not have more than one field specified at a time")
		}
	}
}

func (c *podCheck) envObject(name string, at *kinds.Path) {
	if c.NonEmpty(at, name) {
		c.Each(at, name, apivalidation.NameIsDNSSubdomain(name, true))
	}
}

// subscripted splits "metadata.labels['key']".
func subscripted(path string) (base, key string, ok bool) {
	base, rest, found := strings.Cut(path, "['")
	if !found || base == "" || !strings.HasSuffix(rest, "']") {
		return path, "", false
	}
	return base, strings.TrimSuffix(rest, "']"), true
}

func (c *podCheck) checkFieldRef(ref *corev1.ObjectFieldSelector, allowed sets.Set[string], at *kinds.Path) {
	if !c.NonEmpty(at.Child("apiVersion"), ref.APIVersion) || !c.NonEmpty(at.Child("fieldPath"), ref.FieldPath) {
		return
	}
	base, key, indexed := subscripted(ref.FieldPath)
	problem := ""
	switch {
	case ref.APIVersion != "v1":
		problem = "unsupported pod version: " + ref.APIVersion
	case indexed && base != "metadata.annotations" && base != "metadata.labels":
		problem = "field label does not support subscript: " + ref.FieldPath
	case !indexed && !knownFieldPaths.Has(base) && base != "spec.host":
		problem = "field label not supported: " + ref.FieldPath
	}
	switch {
	case problem != "":
		c.Invalid(at.Child("fieldPath"), ref.FieldPath, "error converting fieldPath: "+problem)
	case indexed && base == "metadata.annotations":
		c.qualified(at, strings.ToLower(key))
	case indexed:
		c.qualified(at, key)
	case !allowed.Has(base):
		kinds.OneOf(&c.Faults, at.Child("fieldPath"), base, sets.List(allowed)...)
	}
}

func (c *podCheck) checkResourceFieldRef(ref *corev1.ResourceFieldSelector, inVolume bool, at *kinds.Path) {
	switch {
	case inVolume && ref.ContainerName == "":
		c.Required(at.Child("containerName"), "")
	case ref.Resource == "":
		c.Required(at.Child("resource"), "")
	case !isHugePageField(ref.Resource):
		kinds.OneOf(&c.Faults, at.Child("resource"), ref.Resource, resourceFieldNames...)
	}
	if ref.Divisor.Cmp(resource.Quantity{}) != 0 {
		c.checkDivisor(ref.Resource, ref.Divisor.String(), at.Child("divisor"))
	}
}

func isHugePageField(name string) bool {
	return strings.HasPrefix(name, "requests.hugepages-") || strings.HasPrefix(name, "limits.hugepages-")
}

func (c *podCheck) checkDivisor(name, divisor string, at *kinds.Path) {
	const sizes = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the %s resource"
	_, measured, _ := strings.Cut(name, ".")
	switch {
	case measured == "cpu":
		if !cpuDivisors.Has(divisor) {
			c.Invalid(at, name, "only divisor's values 1m and 1 are supported with the cpu resource")
		}
	case sizeDivisors.Has(divisor):
	case measured == "memory":
		c.Invalid(at, name, fmt.Sprintf(sizes, "memory"))
	case measured == "ephemeral-storage":
		c.Invalid(at, name, fmt.Sprintf(sizes, "local ephemeral storage"))
	case isHugePageField(name):
		c.Invalid(at, name, fmt.Sprintf(sizes, "hugepages"))
	}
}

// checkFileKeyVolumes: variables come from files of emptyDir volumes only.
func (c *podCheck) checkFileKeyVolumes(at *kinds.Path) {
	sources := make(map[string]*corev1.VolumeSource, len(c.spec.Volumes))
	for i := range c.spec.Volumes {
		sources[c.spec.Volumes[i].Name] = &c.spec.Volumes[i].VolumeSource
	}
	eachContainer(c.spec, func(container *corev1.Container, in place) {
		at := in.under(at)
		for i := range container.Env {
			from := container.Env[i].ValueFrom
			if from == nil || from.FileKeyRef == nil {
				continue
			}
			here := at.Child("env").Index(i).Child("valueFrom").Child("fileKeyRef").Child("volumeName")
			source, ok := sources[from.FileKeyRef.VolumeName]
			switch {
			case !ok:
				c.NotFound(here, from.FileKeyRef.VolumeName)
			case source.EmptyDir == nil:
				c.Invalid(here, from.FileKeyRef.VolumeName, "referenced volume must be of type emptyDir")
			}
		}
	})
}

// place is where in a pod's specification a container is.
type place struct {
	list  string
	index int
}

// under is its path, of a specification that is at a path itself.
func (p place) under(spec *kinds.Path) *kinds.Path { return spec.Child(p.list).Index(p.index) }

// eachContainer visits init, ordinary and ephemeral containers, in that order,
// with their places. Ephemeral containers are visited as copies.
func eachContainer(spec *corev1.PodSpec, visit func(*corev1.Container, place)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i], place{"initContainers", i})
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i], place{"containers", i})
	}
	for i := range spec.EphemeralContainers {
		container := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		visit(&container, place{"ephemeralContainers", i})
	}
}
