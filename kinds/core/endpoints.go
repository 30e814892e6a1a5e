package core

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// Endpoints is the kind that lists the addresses behind a service, deprecated in
// favour of EndpointSlice.
func Endpoints() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Endpoints"),
		Resource:   "endpoints",
		Singular:   "endpoints",
		Short:      []string{"ep"},
		Namespaced: true,
		Storage:    "services/endpoints",
		New:        func() kinds.Object { return &corev1.Endpoints{} },
		NewList:    func() runtime.Object { return &corev1.EndpointsList{} },
		Warning:    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Default:        kinds.Each(defaultEndpoints),
			Validate:       kinds.Check(validateEndpoints),
			ValidateUpdate: kinds.CheckUpdate(validateEndpointsUpdate),
			CreateOnUpdate: true,
			Warnings:       kinds.Warn(endpointsWarnings),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(endpointsTexts(), "Name", "Endpoints", "Age"),
			Row: kinds.Row(func(e *corev1.Endpoints, now time.Time) []any {
				return []any{e.Name, endpointsCell(e), kinds.Created(e, now)}
			}),
		},
	}
}

func defaultEndpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if e.Subsets[i].Ports[j].Protocol == "" {
				e.Subsets[i].Ports[j].Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// shownEndpoints is how many addresses a table cell holds.
const shownEndpoints = 3

func endpointsCell(e *corev1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return kinds.None
	}
	var all []string
	for _, subset := range e.Subsets {
		if len(subset.Ports) == 0 {
			for _, address := range subset.Addresses {
				all = append(all, address.IP)
			}
		}
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				all = append(all, net.JoinHostPort(address.IP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	if len(all) <= shownEndpoints {
		return strings.Join(all, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(all[:shownEndpoints], ","), len(all)-shownEndpoints)
}

// endpointsWarnings are about addresses that parsers disagree about, unless it was
// the controller who wrote them.
func endpointsWarnings(e, _ *corev1.Endpoints) []string {
	if e.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
		return nil
	}
	var w []string
	list := func(addresses []corev1.EndpointAddress, at *kinds.Path) {
		for i := range addresses {
			w = append(w, validation.GetWarningsForIP(at.Index(i).Child("ip").Field(), addresses[i].IP)...)
		}
	}
	for i := range e.Subsets {
		at := kinds.NewPath("subsets").Index(i)
		list(e.Subsets[i].Addresses, at.Child("addresses"))
		list(e.Subsets[i].NotReadyAddresses, at.Child("notReadyAddresses"))
	}
	return w
}
