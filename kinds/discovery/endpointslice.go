// Package discovery says what the kinds of the discovery.k8s.io group are.
package discovery

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{EndpointSlice()} }

// EndpointSlice is the kind that lists some of the addresses behind a service.
func EndpointSlice() *kinds.Kind {
	return &kinds.Kind{
		GVK:        discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:   "endpointslices",
		Singular:   "endpointslice",
		Namespaced: true,
		Storage:    "endpointslices",
		New:        func() kinds.Object { return &discoveryv1.EndpointSlice{} },
		NewList:    func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Strategy: kinds.Strategy{
			Ratchet:        []string{"endpoints.addresses"},
			Default:        kinds.Each(defaultSlice),
			PrepareCreate:  kinds.Each(func(s *discoveryv1.EndpointSlice) { kinds.FirstGeneration(s) }),
			PrepareUpdate:  kinds.Pair(prepareUpdate),
			Validate:       kinds.Check(validate),
			ValidateUpdate: kinds.CheckUpdate(validateUpdate),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "AddressType", "Ports", "Endpoints", "Age"),
			Row: kinds.Row(func(s *discoveryv1.EndpointSlice, now time.Time) []any {
				return []any{s.Name, string(s.AddressType), portsCell(s.Ports), addressesCell(s.Endpoints), kinds.Created(s, now)}
			}),
		},
	}
}

func defaultSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		if s.Ports[i].Name == nil {
			none := ""
			s.Ports[i].Name = &none
		}
		if s.Ports[i].Protocol == nil {
			tcp := corev1.ProtocolTCP
			s.Ports[i].Protocol = &tcp
		}
	}
}

// prepareUpdate counts everything but metadata as wanted state, and labels too.
func prepareUpdate(s, old *discoveryv1.EndpointSlice) {
	before, after := old.DeepCopy(), s.DeepCopy()
	before.ObjectMeta, after.ObjectMeta = metav1.ObjectMeta{}, metav1.ObjectMeta{}
	before.TypeMeta, after.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
	kinds.NextGeneration(s, old, !kinds.Same(before, after) || !kinds.Same(s.Labels, old.Labels))
}

// shown is how many ports or addresses a table cell holds.
const shown = 3

func portsCell(ports []discoveryv1.EndpointPort) string {
	cells := make([]string, 0, len(ports))
	for _, port := range ports {
		switch {
		case port.Port != nil:
			cells = append(cells, strconv.Itoa(int(*port.Port)))
		case port.Name != nil:
			cells = append(cells, *port.Name)
		default:
			cells = append(cells, "*")
		}
	}
	return few(cells)
}

func addressesCell(endpoints []discoveryv1.Endpoint) string {
	var cells []string
	for _, endpoint := range endpoints {
		cells = append(cells, endpoint.Addresses...)
	}
	return few(cells)
}

func few(cells []string) string {
	switch {
	case len(cells) == 0:
		return kinds.Unset
	case len(cells) <= shown:
		return strings.Join(cells, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(cells[:shown], ","), len(cells)-shown)
}
