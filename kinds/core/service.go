package core

import (
	"fmt"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Service is the kind for a stable address in front of pods.
func Service() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Service"),
		Resource:   "services",
		Singular:   "service",
		Short:      []string{"svc"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "services/specs",
		New:        func() kinds.Object { return &corev1.Service{} },
		NewList:    func() runtime.Object { return &corev1.ServiceList{} },
		Strategy: kinds.Strategy{
			ReturnsDeleted: true,
			Default:        kinds.Each(defaultService),
			PrepareCreate:  kinds.Each(prepareService),
			PrepareUpdate:  kinds.Pair(prepareServiceUpdate),
			Validate:       kinds.Check(func(s *corev1.Service) field.ErrorList { return validateService(s, nil) }),
			ValidateUpdate: kinds.CheckUpdate(validateServiceUpdate),
			Warnings:       kinds.Warn(serviceWarnings),
			ValidateName:   apivalidation.NameIsDNSLabel,
			CreateOnUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(serviceTexts(), "Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector|wide"),
			Row:     kinds.Row(serviceRow),
		},
		FieldLabels: []string{"spec.clusterIP", "spec.type"},
		Fields: kinds.Fields(func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *corev1.Service) { next.Status = body.Status }, validateServiceStatus),
			proxyOf("ServiceProxyOptions", func() runtime.Object { return &corev1.ServiceProxyOptions{} }),
		},
	}
}

func serviceRow(s *corev1.Service, now time.Time) []any {
	clusterIP := kinds.None
	if len(s.Spec.ClusterIPs) > 0 {
		clusterIP = s.Spec.ClusterIPs[0]
	}
	return []any{s.Name, string(s.Spec.Type), clusterIP, externalCell(s), portsCell(s.Spec.Ports),
		kinds.Created(s, now), labels.FormatLabels(s.Spec.Selector)}
}

func portsCell(ports []corev1.ServicePort) string {
	if len(ports) == 0 {
		return kinds.None
	}
	cells := make([]string, 0, len(ports))
	for _, port := range ports {
		if port.NodePort > 0 {
			cells = append(cells, fmt.Sprintf("%d:%d/%s", port.Port, port.NodePort, port.Protocol))
			continue
		}
		cells = append(cells, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
	}
	return strings.Join(cells, ",")
}

func externalCell(s *corev1.Service) string {
	var addresses []string
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		if len(s.Spec.ExternalIPs) == 0 {
			return kinds.None
		}
	case corev1.ServiceTypeLoadBalancer:
		addresses = balancerAddresses(s.Status.LoadBalancer.Ingress)
		if len(addresses)+len(s.Spec.ExternalIPs) == 0 {
			return "<pending>"
		}
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	default:
		return kinds.Unknown
	}
	return strings.Join(append(addresses, s.Spec.ExternalIPs...), ",")
}

func balancerAddresses(ingress []corev1.LoadBalancerIngress) []string {
	seen := map[string]bool{}
	var addresses []string
	for _, point := range ingress {
		address := point.IP
		if address == "" {
			address = point.Hostname
		}
		if address != "" && !seen[address] {
			seen[address] = true
			addresses = append(addresses, address)
		}
	}
	sort.Strings(addresses)
	return addresses
}
