package metricsapi

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func kind(name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: name}
}

// resources is the group version's discovery document.
func resources() *metav1.APIResourceList {
	return &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"},
		GroupVersion: GroupVersion.String(),
		APIResources: []metav1.APIResource{
			{Name: "nodes", Kind: "NodeMetrics", Verbs: metav1.Verbs{"get", "list"}},
			{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: metav1.Verbs{"get", "list"}},
		},
	}
}

// used is how much was used, over which time.
type used struct {
	at     time.Time
	window time.Duration
	nanos  int64 // of a core
	bytes  int64
}

func (u used) list() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(u.nanos, resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(u.bytes, resource.BinarySI),
	}
}

// order is a pod's containers in the order of its spec; what is not there (a
// foreign node's) comes last, by name.
func order(p *corev1.Pod, known map[string]point) []string {
	var names []string
	add := func(name string) {
		if _, ok := known[name]; ok {
			names = append(names, name)
		}
	}
	for i := range p.Spec.InitContainers {
		add(p.Spec.InitContainers[i].Name)
	}
	for i := range p.Spec.Containers {
		add(p.Spec.Containers[i].Name)
	}
	for i := range p.Spec.EphemeralContainers {
		add(p.Spec.EphemeralContainers[i].Name)
	}
	var others []string
	for name := range known {
		if !slices.Contains(names, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return append(names, others...)
}
