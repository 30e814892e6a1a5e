package metricsapi

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

func kind(name string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: GroupVersion.String(), Kind: name}
}

// reading is all that may be done with metrics.
var reading = []string{"get", "list"}

// Kinds are what is served, for those who publish schemas. No table has them: they
// are answered here.
var Kinds = []*kinds.Kind{
	{GVK: GroupVersion.WithKind("NodeMetrics"), Resource: "nodes", Verbs: reading},
	{GVK: GroupVersion.WithKind("PodMetrics"), Resource: "pods", Namespaced: true, Verbs: reading},
}

// resources is the group version's discovery document.
func resources() *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"}, GroupVersion: GroupVersion.String()}
	for _, k := range Kinds {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: k.Resource, Kind: k.GVK.Kind, Namespaced: k.Namespaced, Verbs: k.Verbs})
	}
	return list
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
