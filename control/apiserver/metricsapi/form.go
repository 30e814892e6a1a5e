package metricsapi

import (
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sampan-dev/sampan/internal/speak"
)

// The forms that the parameter "as" of a media type asks for.
const (
	asTable       = "Table"
	asPartial     = "PartialObjectMetadata"
	asPartialList = "PartialObjectMetadataList"
)

// write answers in the first form that the client accepts and that there is: 406 if
// there is none.
func (a *API) write(w http.ResponseWriter, r *http.Request, answer runtime.Object) {
	for _, c := range speak.Choices(r.Header) {
		obj, ok := shaped(answer, c)
		if !ok {
			continue
		}
		body, err := speak.Encode(c.Media, obj)
		if err != nil {
			a.cfg.Fail(w, r, fmt.Errorf("encode metrics: %w", err))
			return
		}
		w.Header().Set("Content-Type", c.Media)
		_, _ = w.Write(body) // the client has gone: nobody to tell
		return
	}
	a.cfg.Fail(w, r, speak.NotAcceptable())
}

// shaped is an answer in the form of a choice; false if it has none such: a table is
// not for programs (no protobuf, no CBOR), as upstream's, and a list is no object.
func shaped(answer runtime.Object, c speak.Choice) (runtime.Object, bool) {
	as := c.Params["as"]
	if as == "" {
		return answer, true
	}
	if c.Params["g"] != metav1.GroupName || c.Params["v"] != "v1" && c.Params["v"] != "v1beta1" {
		return nil, false
	}
	switch isList := meta.IsListType(answer); {
	case as == asTable:
		return tableOf(answer), c.Media == speak.JSON || c.Media == speak.YAML
	case as == asPartialList && isList, as == asPartial && !isList:
		return metadataOf(answer)
	}
	return nil, false
}

// tableOf shows metrics in columns.
func tableOf(answer runtime.Object) *metav1.Table {
	t := &metav1.Table{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: asTable},
		ColumnDefinitions: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			{Name: "cpu", Type: "string", Format: "quantity"}, {Name: "memory", Type: "string", Format: "quantity"},
			{Name: "Window", Type: "string", Format: "duration"},
		},
		Rows: []metav1.TableRow{},
	}
	_ = each(answer, func(m *metav1.ObjectMeta, usage corev1.ResourceList, window metav1.Duration) {
		row := metav1.TableRow{Cells: []any{m.Name, usage.Cpu().String(), usage.Memory().String(), window.Duration.String()}}
		row.Object.Object = partial(m)
		t.Rows = append(t.Rows, row)
	})
	return t
}

// metadataOf is an answer's metadata alone: one object's, or a list of them.
func metadataOf(answer runtime.Object) (runtime.Object, bool) {
	list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: asPartialList},
		Items: []metav1.PartialObjectMetadata{}}
	if !each(answer, func(m *metav1.ObjectMeta, _ corev1.ResourceList, _ metav1.Duration) {
		list.Items = append(list.Items, *partial(m))
	}) {
		return nil, false
	}
	if meta.IsListType(answer) {
		return list, true
	}
	return &list.Items[0], true
}

func partial(m *metav1.ObjectMeta) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: asPartial}, ObjectMeta: *m}
}

// each shows the metrics of an answer one by one; false if it is something else.
func each(answer runtime.Object, show func(*metav1.ObjectMeta, corev1.ResourceList, metav1.Duration)) bool {
	switch v := answer.(type) {
	case *v1beta1.NodeMetrics:
		show(&v.ObjectMeta, v.Usage, v.Window)
	case *v1beta1.NodeMetricsList:
		for i := range v.Items {
			show(&v.Items[i].ObjectMeta, v.Items[i].Usage, v.Items[i].Window)
		}
	case *v1beta1.PodMetrics:
		show(&v.ObjectMeta, sum(v), v.Window)
	case *v1beta1.PodMetricsList:
		for i := range v.Items {
			show(&v.Items[i].ObjectMeta, sum(&v.Items[i]), v.Items[i].Window)
		}
	default:
		return false
	}
	return true
}

// sum is what all containers use.
func sum(p *v1beta1.PodMetrics) corev1.ResourceList {
	cpu, memory := resource.Quantity{Format: resource.DecimalSI}, resource.Quantity{Format: resource.BinarySI}
	for _, c := range p.Containers {
		cpu.Add(*c.Usage.Cpu())
		memory.Add(*c.Usage.Memory())
	}
	return corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory}
}
