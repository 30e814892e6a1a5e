package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// warnings collects what is allowed but hardly meant.
type warnings []string

func (w *warnings) add(at *kinds.Path, format string, args ...any) {
	*w = append(*w, at.String()+": "+fmt.Sprintf(format, args...))
}

// podWarnings warns on create only: people create pods, programs update them.
func podWarnings(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var w warnings
	w.podName(p.Name, "this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v")
	w.template(&p.ObjectMeta, &p.Spec, nil)
	return w
}

// podName warns of names that are no host names.
func (w *warnings) podName(name, format string) {
	if messages := kinds.DNSLabel(name); len(messages) > 0 {
		w.add(kinds.NewPath("metadata").Child("name"), format, messages)
	}
}

// TemplateWarnings makes the warnings of a kind with a pod template, which lies
// at a path: they come on create and when the template has changed.
func TemplateWarnings[T kinds.Object](template func(T) *corev1.PodTemplateSpec, path ...string) func(obj, old kinds.Object) []string {
	return func(obj, old kinds.Object) []string {
		t := template(obj.(T))
		if old != nil && kinds.Same(t, template(old.(T))) {
			return nil
		}
		var w warnings
		at := kinds.NewPath(path[0])
		for _, name := range path[1:] {
			at = at.Child(name)
		}
		w.template(&t.ObjectMeta, &t.Spec, at)
		return w
	}
}

func (w *warnings) template(meta *metav1.ObjectMeta, spec *corev1.PodSpec, at *kinds.Path) {
	under := at.Child("spec")
	w.labels(spec, under)
	for key, message := range map[string]string{
		"scheduler.alpha.kubernetes.io/critical-pod":  `non-functional in v1.16+; use the "priorityClassName" field instead`,
		"security.alpha.kubernetes.io/sysctls":        `non-functional in v1.11+; use the "sysctls" field instead`,
		"security.alpha.kubernetes.io/unsafe-sysctls": `non-functional in v1.11+; use the "sysctls" field instead`,
		"seccomp.security.alpha.kubernetes.io/pod":    `non-functional in v1.27+; use the "seccompProfile" field instead`,
	} {
		if _, ok := meta.Annotations[key]; ok {
			w.add(at.Child("metadata").Child("annotations").Key(key), "%s", message)
		}
	}
	w.volumes(spec.Volumes, under.Child("volumes"))
	w.lists(spec, under)
	eachContainer(spec, func(c *corev1.Container, in place) { w.container(c, in.under(under)) })
	w.ports(spec, under)
	w.last(spec, under)
	w.sources(spec.Volumes)
}

// renamedLabels are the node labels that have a successor.
var renamedLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

func (w *warnings) labels(spec *corev1.PodSpec, at *kinds.Path) {
	for key := range spec.NodeSelector {
		if message, ok := renamedLabels[key]; ok {
			w.add(at.Child("nodeSelector").Key(key), "%s", message)
		}
	}
	w.nodeAffinity(spec.Affinity, at)
	for i, s := range spec.TopologySpreadConstraints {
		here := at.Child("topologySpreadConstraints").Index(i)
		if message, ok := renamedLabels[s.TopologyKey]; ok {
			w.add(here.Child("topologyKey"), "%s is %s", s.TopologyKey, message)
		}
		if s.LabelSelector == nil {
			w.add(here.Child("labelSelector"), nullSelectorText)
		}
	}
}

func (w *warnings) volumes(volumes []corev1.Volume, at *kinds.Path) {
	for i := range volumes {
		v := &volumes[i]
		for _, gone := range []struct {
			field, message string
			set            bool
		}{
			{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", v.PhotonPersistentDisk != nil},
			{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+", v.GitRepo != nil},
			{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", v.ScaleIO != nil},
			{"flocker", "deprecated in v1.22, non-functional in v1.25+", v.Flocker != nil},
			{"storageOS", "deprecated in v1.22, non-functional in v1.25+", v.StorageOS != nil},
			{"quobyte", "deprecated in v1.22, non-functional in v1.25+", v.Quobyte != nil},
			{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", v.Glusterfs != nil},
			{"cephfs", "deprecated in v1.28, non-functional in v1.31+", v.CephFS != nil},
			{"rbd", "deprecated in v1.28, non-functional in v1.31+", v.RBD != nil},
		} {
			if gone.set {
				w.add(at.Index(i).Child(gone.field), "%s", gone.message)
			}
		}
	}
}

func (w *warnings) lists(spec *corev1.PodSpec, at *kinds.Path) {
	seen := map[string]bool{}
	for i, alias := range spec.HostAliases {
		if seen[alias.IP] {
			w.add(at.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", alias.IP)
		}
		seen[alias.IP] = true
	}
	seen = map[string]bool{}
	for i, secret := range spec.ImagePullSecrets {
		here := at.Child("imagePullSecrets").Index(i).Child("name")
		if seen[secret.Name] {
			w.add(here, "duplicate name %q", secret.Name)
		}
		if secret.Name == "" {
			w.add(here, "invalid empty name %q", secret.Name)
		}
		seen[secret.Name] = true
	}
}

func (w *warnings) container(c *corev1.Container, at *kinds.Path) {
	for _, list := range []struct {
		field string
		list  corev1.ResourceList
	}{{"limits", c.Resources.Limits}, {"requests", c.Resources.Requests}} {
		for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if amount, ok := list.list[name]; ok && amount.MilliValue()%1000 != 0 {
				w.add(at.Child("resources").Child(list.field).Key(string(name)), "fractional byte value %q is invalid, must be an integer", amount.String())
			}
		}
	}
	seen := map[string]bool{}
	for i, v := range c.Env {
		// X=$(X):more is how one appends to a variable.
		appends := func(reference string) bool {
			return v.ValueFrom == nil && v.Value != reference && strings.Contains(v.Value, reference)
		}
		if seen[v.Name] && !appends("$("+v.Name+")") {
			w.add(at.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", v.Name)
		}
		seen[v.Name] = true
	}
}

func (w *warnings) ports(spec *corev1.PodSpec, at *kinds.Path) {
	type taker struct {
		place
		i    int
		port corev1.ContainerPort
	}
	own := func(t taker) string { return t.under(at).Child("ports").Index(t.i).String() }
	taken := map[string][]taker{}
	eachContainer(spec, func(c *corev1.Container, in place) {
		at := in.under(at)
		for i, port := range c.Ports {
			here := at.Child("ports").Index(i)
			if port.HostIP != "" && port.HostPort == 0 {
				w.add(here, "hostIP set without hostPort: %+v", port)
			}
			key := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
			for _, other := range taken[key] {
				switch {
				case port.HostIP == other.port.HostIP && port.HostPort == other.port.HostPort:
					w.add(here, "duplicate port definition with %s", own(other))
				case port.HostPort == 0 || other.port.HostPort == 0:
					w.add(here, "overlapping port definition with %s", own(other))
				case port.HostPort == other.port.HostPort && (port.HostIP == "") != (other.port.HostIP == ""):
					w.add(here, "dangerously ambiguous port definition with %s", own(other))
				}
			}
			taken[key] = append(taken[key], taker{in, i, port})
		}
	})
}
