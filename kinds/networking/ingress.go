package networking

import (
	"fmt"
	"sort"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Ingress is the kind that routes HTTP from outside to services.
func Ingress() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Ingress"),
		Resource:   "ingresses",
		Singular:   "ingress",
		Short:      []string{"ing"},
		Namespaced: true,
		Storage:    "ingress",
		New:        func() kinds.Object { return &networkingv1.Ingress{} },
		NewList:    func() runtime.Object { return &networkingv1.IngressList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			PrepareCreate:  kinds.Each(prepareIngress),
			PrepareUpdate:  kinds.Pair(prepareIngressUpdate),
			Validate:       kinds.Check(validateIngress),
			ValidateUpdate: kinds.CheckUpdate(validateIngressUpdate),
			Generation:     true,
			Warnings:       kinds.Warn(ingressWarnings),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(ingressTexts(), "Name", "Class", "Hosts", "Address", "Ports", "Age"),
			Row:     kinds.Row(ingressRow),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *networkingv1.Ingress) { next.Status = body.Status }, validateIngressStatus),
		},
	}
}

func prepareIngress(i *networkingv1.Ingress) {
	i.Status = networkingv1.IngressStatus{}
	kinds.FirstGeneration(i)
}

func prepareIngressUpdate(i, old *networkingv1.Ingress) {
	i.Status = old.Status
	kinds.NextGeneration(i, old, !kinds.Same(i.Spec, old.Spec))
}

// shownHosts is how many hosts a table cell holds.
const shownHosts = 3

func ingressRow(i *networkingv1.Ingress, now time.Time) []any {
	class := kinds.None
	if i.Spec.IngressClassName != nil {
		class = *i.Spec.IngressClassName
	}
	ports := "80"
	if len(i.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	return []any{i.Name, class, hostsCell(i.Spec.Rules), addressCell(i), ports, kinds.Created(i, now)}
}

func hostsCell(rules []networkingv1.IngressRule) string {
	var hosts []string
	more := false
	for _, rule := range rules {
		if len(hosts) == shownHosts {
			more = true
			break
		}
		if rule.Host != "" {
			hosts = append(hosts, rule.Host)
		}
	}
	if len(hosts) == 0 {
		return "*"
	}
	cell := strings.Join(hosts, ",")
	if more {
		cell += fmt.Sprintf(" + %d more...", len(rules)-shownHosts)
	}
	return cell
}

func addressCell(i *networkingv1.Ingress) string {
	seen := map[string]bool{}
	var addresses []string
	for _, point := range i.Status.LoadBalancer.Ingress {
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
	return strings.Join(addresses, ",")
}

// ingressWarnings tell who creates an ingress that its class has a field now.
func ingressWarnings(i, old *networkingv1.Ingress) []string {
	if _, ok := i.Annotations[classAnnotation]; !ok || old != nil || i.Spec.IngressClassName != nil {
		return nil
	}
	return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation)}
}
