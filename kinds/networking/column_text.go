package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func ingressClassTexts() map[string]string {
	return map[string]string{
		"Controller": "Controller that is responsible for handling this class",
		"Parameters": "A reference to a resource with additional parameters",
	}
}

func ingressTexts() map[string]string {
	return map[string]string{
		"Class":   "The name of the IngressClass resource that should be used for additional configuration",
		"Hosts":   "Hosts that incoming requests are matched against before the ingress rule",
		"Address": "Address is a list containing ingress points for the load-balancer",
		"Ports":   "Ports of TLS configurations that open",
	}
}

func ipAddressTexts() map[string]string {
	return map[string]string{
		"ParentRef": networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"],
	}
}

func networkPolicyTexts() map[string]string {
	return map[string]string{
		"Pod-Selector": networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"],
	}
}

func serviceCIDRTexts() map[string]string {
	return map[string]string{
		"CIDRs": networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"],
	}
}
