// Package discovery says what the kinds of the discovery.k8s.io group are.
package discovery

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"

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
			NamesOnUpdate:  true,
			Default:        kinds.Each(defaultSlice),
			PrepareCreate:  kinds.Each(prepare),
			PrepareUpdate:  kinds.Pair(prepareUpdate),
			Validate:       kinds.Check(validate),
			ValidateUpdate: kinds.CheckUpdate(validateUpdate),
			Generation:     true,
			Warnings:       kinds.Warn(warnings),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(endpointSliceTexts(), "Name", "AddressType", "Ports", "Endpoints", "Age"),
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
	if !kinds.Same(s.Endpoints, old.Endpoints) {
		dropTopology(s, old)
	}
}

func prepare(s *discoveryv1.EndpointSlice) {
	kinds.FirstGeneration(s)
	dropTopology(s, &discoveryv1.EndpointSlice{})
}

// dropTopology empties a field that this version of the kind only shows. A node that
// it named before becomes the endpoint's, should a client that knows one field alone
// have left out the other.
func dropTopology(s, old *discoveryv1.EndpointSlice) {
	known := sets.New[string]()
	for i := range old.Endpoints {
		known.Insert(old.Endpoints[i].DeprecatedTopology[corev1.LabelHostname])
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		node, ok := e.DeprecatedTopology[corev1.LabelHostname]
		if e.NodeName == nil && ok && known.Has(node) && len(apivalidation.NameIsDNSSubdomain(node, false)) == 0 {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
	}
}

// warnings are about slices of names, and about addresses that parsers disagree
// about, unless it was a controller who wrote them.
func warnings(s, old *discoveryv1.EndpointSlice) []string {
	var w []string
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		w = append(w, "spec.addressType: FQDN endpoints are deprecated")
	}
	switch s.Labels[discoveryv1.LabelManagedBy] {
	case "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io":
		return w
	}
	for i := range s.Endpoints {
		at := kinds.NewPath("endpoints").Index(i).Child("addresses")
		for j, address := range s.Endpoints[i].Addresses {
			w = append(w, validation.GetWarningsForIP(at.Index(j).Field(), address)...)
		}
	}
	return w
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
