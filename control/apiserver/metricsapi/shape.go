package metricsapi

import (
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodeMetrics is how much a node uses.
type NodeMetrics struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	// The usage is that of the interval [Timestamp-Window, Timestamp].
	Timestamp metav1.Time         `json:"timestamp"`
	Window    metav1.Duration     `json:"window"`
	Usage     corev1.ResourceList `json:"usage"`
}

// NodeMetricsList is a list of NodeMetrics.
type NodeMetricsList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []NodeMetrics `json:"items"`
}

// PodMetrics is how much a pod's containers use.
type PodMetrics struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	// The usage is that of the interval [Timestamp-Window, Timestamp].
	Timestamp  metav1.Time        `json:"timestamp"`
	Window     metav1.Duration    `json:"window"`
	Containers []ContainerMetrics `json:"containers"`
}

// PodMetricsList is a list of PodMetrics.
type PodMetricsList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []PodMetrics `json:"items"`
}

// ContainerMetrics is how much a container uses.
type ContainerMetrics struct {
	Name  string              `json:"name"`
	Usage corev1.ResourceList `json:"usage"`
}

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

func wantsTable(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "as=Table") && strings.Contains(accept, "g=meta.k8s.io")
}

// tableOf shows metrics in columns.
func tableOf(answer any) *metav1.Table {
	t := &metav1.Table{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "Table"},
		ColumnDefinitions: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			{Name: "cpu", Type: "string", Format: "quantity"}, {Name: "memory", Type: "string", Format: "quantity"},
			{Name: "Window", Type: "string", Format: "duration"},
		},
		Rows: []metav1.TableRow{},
	}
	row := func(m metav1.ObjectMeta, usage corev1.ResourceList, window metav1.Duration) {
		cells := []any{m.Name, usage.Cpu().String(), usage.Memory().String(), window.Duration.String()}
		item := metav1.TableRow{Cells: cells}
		item.Object.Object = &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, ObjectMeta: m}
		t.Rows = append(t.Rows, item)
	}
	switch v := answer.(type) {
	case *NodeMetrics:
		row(v.ObjectMeta, v.Usage, v.Window)
	case *NodeMetricsList:
		for i := range v.Items {
			row(v.Items[i].ObjectMeta, v.Items[i].Usage, v.Items[i].Window)
		}
	case *PodMetrics:
		row(v.ObjectMeta, v.sum(), v.Window)
	case *PodMetricsList:
		for i := range v.Items {
			row(v.Items[i].ObjectMeta, v.Items[i].sum(), v.Items[i].Window)
		}
	}
	return t
}

// sum is what all containers use.
func (p *PodMetrics) sum() corev1.ResourceList {
	cpu, memory := resource.Quantity{Format: resource.DecimalSI}, resource.Quantity{Format: resource.BinarySI}
	for _, c := range p.Containers {
		cpu.Add(*c.Usage.Cpu())
		memory.Add(*c.Usage.Memory())
	}
	return corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory}
}
