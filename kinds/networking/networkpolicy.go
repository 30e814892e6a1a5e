package networking

import (
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// NetworkPolicy is the kind that says which pods may talk to which.
func NetworkPolicy() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("NetworkPolicy"),
		Resource:   "networkpolicies",
		Singular:   "networkpolicy",
		Short:      []string{"netpol"},
		Namespaced: true,
		Storage:    "networkpolicies",
		New:        func() kinds.Object { return &networkingv1.NetworkPolicy{} },
		NewList:    func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
		Strategy: kinds.Strategy{
			Default:       kinds.Each(defaultNetworkPolicy),
			PrepareCreate: kinds.Each(func(p *networkingv1.NetworkPolicy) { kinds.FirstGeneration(p) }),
			PrepareUpdate: kinds.Pair(func(p, old *networkingv1.NetworkPolicy) {
				kinds.NextGeneration(p, old, !reflect.DeepEqual(p.Spec, old.Spec)) // nil is not empty here
			}),
			Validate:       kinds.Check(validateNetworkPolicy),
			ValidateUpdate: kinds.CheckUpdate(validateNetworkPolicyUpdate),
			Generation:     true,
			Warnings:       kinds.Warn(networkPolicyWarnings),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(networkPolicyTexts(), "Name", "Pod-Selector", "Age"),
			Row: kinds.Row(func(p *networkingv1.NetworkPolicy, now time.Time) []any {
				return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), kinds.Created(p, now)}
			}),
		},
	}
}

// defaultNetworkPolicy: every policy is about ingress unless it says otherwise,
// and about egress if it has such rules.
func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	for i := range p.Spec.Ingress {
		defaultPorts(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		defaultPorts(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) > 0 {
		return
	}
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(p.Spec.Egress) > 0 {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
}

func defaultPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			tcp := corev1.ProtocolTCP
			ports[i].Protocol = &tcp
		}
	}
}

// networkPolicyWarnings are about ranges that parsers disagree about.
func networkPolicyWarnings(p, _ *networkingv1.NetworkPolicy) []string {
	var w []string
	peers := func(list []networkingv1.NetworkPolicyPeer, at *kinds.Path) {
		for i := range list {
			b, here := list[i].IPBlock, at.Index(i).Child("ipBlock")
			if b == nil {
				continue
			}
			w = append(w, validation.GetWarningsForCIDR(here.Child("cidr").Field(), b.CIDR)...)
			for j, cidr := range b.Except {
				w = append(w, validation.GetWarningsForCIDR(here.Child("except").Index(j).Field(), cidr)...)
			}
		}
	}
	at := kinds.NewPath("spec")
	for i := range p.Spec.Ingress {
		peers(p.Spec.Ingress[i].From, at.Child("ingress").Index(i).Child("from"))
	}
	for i := range p.Spec.Egress {
		peers(p.Spec.Egress[i].To, at.Child("egress").Index(i).Child("to"))
	}
	return w
}
