package core

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// MirrorPodAnnotation marks the copy of a pod that a node runs from a file.
const MirrorPodAnnotation = corev1.MirrorPodAnnotationKey

// validatePodCreate checks a new pod.
func validatePodCreate(p *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	f.Join(validatePod(p))
	spec := kinds.NewPath("spec")
	if len(p.Spec.EphemeralContainers) > 0 {
		f.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create")
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		f.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	}
	f.Join(validateProfilesAgree(p.Annotations, &p.Spec, spec))
	return f.List()
}

// validatePod checks what holds for a pod at any time.
func validatePod(p *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	spec := kinds.NewPath("spec")
	f.Join(validatePodAnnotations(p.Annotations, &p.Spec, kinds.NewPath("metadata").Child("annotations")))
	f.Join(validatePodSpec(&p.Spec, &p.ObjectMeta, spec))
	if grace := p.Spec.TerminationGracePeriodSeconds; grace != nil {
		f.NonNegative(spec.Child("terminationGracePeriodSeconds"), *grace)
	}
	for i := range p.Spec.Containers {
		imageUnpadded(&f, p.Spec.Containers[i].Image, spec.Child("containers").Index(i))
	}
	for i := range p.Spec.InitContainers {
		imageUnpadded(&f, p.Spec.InitContainers[i].Image, spec.Child("initContainers").Index(i))
	}
	if p.Spec.ServiceAccountName == "" {
		forbidTokens(&f, p.Spec.Volumes, spec.Child("volumes"))
	}
	return f.List()
}

// imageUnpadded holds for pods only: templates may carry " " as a placeholder.
func imageUnpadded(f *kinds.Faults, image string, at *kinds.Path) {
	if strings.TrimSpace(image) != image {
		f.Invalid(at.Child("image"), image, "must not have leading or trailing whitespace")
	}
}

func forbidTokens(f *kinds.Faults, volumes []corev1.Volume, at *kinds.Path) {
	for i := range volumes {
		if volumes[i].Projected == nil {
			continue
		}
		for j, source := range volumes[i].Projected.Sources {
			if source.ServiceAccountToken != nil {
				f.Forbidden(at.Index(i).Child("projected").Child("sources").Index(j).Child("serviceAccountToken"),
					"must not be specified when serviceAccountName is not set")
			}
		}
	}
}

// ValidatePodTemplate checks the pod template of a workload.
func ValidatePodTemplate(t *corev1.PodTemplateSpec, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.JoinAt(at.Child("labels"), metavalidation.ValidateLabels(t.Labels, kinds.Here))
	f.JoinAt(at.Child("annotations"), apivalidation.ValidateAnnotations(t.Annotations, kinds.Here))
	f.Join(validatePodAnnotations(t.Annotations, &t.Spec, at.Child("annotations")))
	f.Join(validatePodSpec(&t.Spec, nil, at.Child("spec")))
	f.Join(validateProfilesAgree(t.Annotations, &t.Spec, at.Child("spec")))
	if len(t.Spec.EphemeralContainers) > 0 {
		f.Forbidden(at.Child("spec").Child("ephemeralContainers"), "ephemeral containers not allowed in pod template")
	}
	return f.List()
}

// podCheck is one validation of a pod spec: what every part of it needs to know.
type podCheck struct {
	kinds.Faults
	spec *corev1.PodSpec
	// meta is the pod's metadata; nil in a template.
	meta *metav1.ObjectMeta
	// volumes are the volumes that are well formed, by name.
	volumes map[string]*corev1.VolumeSource
	// claims are the names of the pod's resource claims.
	claims sets.Set[string]
	// root and placed are a persistent volume's: where its specification is, and
	// whether it says on which nodes it can be had.
	root   *kinds.Path
	placed bool
}

// hostUsers says that the pod lives in the host's user namespace.
func (c *podCheck) hostUsers() bool { return c.spec.HostUsers == nil || *c.spec.HostUsers }

func validatePodSpec(spec *corev1.PodSpec, meta *metav1.ObjectMeta, at *kinds.Path) field.ErrorList {
	c := &podCheck{spec: spec, meta: meta, volumes: map[string]*corev1.VolumeSource{}, claims: sets.New[string]()}
	if spec.TerminationGracePeriodSeconds == nil {
		c.Required(at.Child("terminationGracePeriodSeconds"), "")
	}
	c.checkVolumes(at.Child("volumes"))
	c.checkResourceClaims(at.Child("resourceClaims"))
	c.checkContainers(at.Child("containers"))
	c.checkInitContainers(at.Child("initContainers"))
	c.checkEphemeralContainers(at.Child("ephemeralContainers"))
	c.checkFileKeyVolumes(at)
	c.checkPodResources(at)
	c.checkHostPorts(at.Child("containers"))
	c.checkLife(at)
	c.checkNames(at)
	c.checkPodSecurity(at.Child("securityContext"))
	c.checkNamespaces(at)
	c.checkOS(at)
	c.checkScheduling(at)
	c.checkDNS(at.Child("dnsConfig"))
	c.checkHostNames(at)
	return c.List()
}

// checkLife checks what decides how long a pod lives and what becomes of it.
func (c *podCheck) checkLife(at *kinds.Path) {
	spec := c.spec
	kinds.RequiredListed(&c.Faults, at.Child("restartPolicy"), spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	kinds.RequiredListed(&c.Faults, at.Child("dnsPolicy"), spec.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	if deadline := spec.ActiveDeadlineSeconds; deadline != nil && (*deadline < 1 || *deadline > math.MaxInt32) {
		c.Invalid(at.Child("activeDeadlineSeconds"), *deadline, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	for i, gate := range spec.ReadinessGates {
		c.qualified(at.Child("readinessGates").Index(i).Child("conditionType"), string(gate.ConditionType))
	}
	if spec.PreemptionPolicy != nil {
		kinds.RequiredListed(&c.Faults, at.Child("preemptionPolicy"), *spec.PreemptionPolicy,
			corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if spec.Overhead != nil {
		overhead := corev1.ResourceRequirements{Limits: spec.Overhead}
		c.Join(validateResources(&overhead, ofContainer, nil, at.Child("overhead")))
	}
}

// checkNames checks the names of other objects.
func (c *podCheck) checkNames(at *kinds.Path) {
	spec := c.spec
	if spec.ServiceAccountName != "" {
		c.Each(at.Child("serviceAccountName"), spec.ServiceAccountName,
			apivalidation.ValidateServiceAccountName(spec.ServiceAccountName, false))
	}
	if spec.DeprecatedServiceAccount != spec.ServiceAccountName {
		c.Invalid(at.Child("deprecatedServiceAccount"), spec.DeprecatedServiceAccount,
			fmt.Sprintf("must be the same as serviceAccountName: %q", spec.ServiceAccountName))
	}
	c.subdomain(at.Child("nodeName"), spec.NodeName)
	c.subdomain(at.Child("priorityClassName"), spec.PriorityClassName)
	if spec.RuntimeClassName != nil {
		c.Each(at.Child("runtimeClassName"), *spec.RuntimeClassName, apivalidation.NameIsDNSSubdomain(*spec.RuntimeClassName, false))
	}
	if group := spec.SchedulingGroup; group != nil {
		path := at.Child("schedulingGroup").Child("podGroupName")
		if group.PodGroupName == nil {
			c.Invalid(path, group.PodGroupName, "must specify one of: `podGroupName`")
		} else {
			c.Each(path, *group.PodGroupName, apivalidation.NameIsDNSSubdomain(*group.PodGroupName, false))
		}
	}
}

// subdomain checks an optional name.
func (c *podCheck) subdomain(at *kinds.Path, name string) {
	if name != "" {
		c.Each(at, name, kinds.DNSSubdomain(name))
	}
}

func (c *podCheck) label(at *kinds.Path, name string) {
	c.Each(at, name, kinds.DNSLabel(name))
}

func (c *podCheck) qualified(at *kinds.Path, name string) {
	c.Each(at, name, validation.IsQualifiedName(name))
}

// validatePodAnnotations checks the annotations that mean something on a pod.
func validatePodAnnotations(annotations map[string]string, spec *corev1.PodSpec, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	if value, mirror := annotations[MirrorPodAnnotation]; mirror && spec.NodeName == "" {
		f.Invalid(at.Key(MirrorPodAnnotation), value, "must set spec.nodeName if mirror pod annotation is set")
	}
	if cost, ok := annotations[corev1.PodDeletionCost]; ok && !isDeletionCost(cost) {
		f.Invalid(at.Key(corev1.PodDeletionCost), cost, "must be a 32bit integer")
	}
	f.Join(validateProfileAnnotations(annotations, spec, at))
	return f.List()
}

// isDeletionCost wants a plain 32 bit number: no plus sign, no leading zeros.
func isDeletionCost(cost string) bool {
	if cost == "" || cost[0] == '+' || (len(cost) > 1 && cost[0] == '0') {
		return false
	}
	_, err := strconv.ParseInt(cost, 10, 32)
	return err == nil
}
