package networking

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// classAnnotation named an ingress's class before it had a field.
const classAnnotation = "kubernetes.io/ingress.class"

func validateIngress(i *networkingv1.Ingress) field.ErrorList {
	var f kinds.Faults
	f.Join(ingressCheck{}.ingress(i))
	value, ok := i.Annotations[classAnnotation]
	if ok && i.Spec.IngressClassName != nil && value != *i.Spec.IngressClassName {
		f.Invalid(kinds.NewPath("annotations").Child(classAnnotation), value, "must match `ingressClassName` when both are specified")
	}
	return f.List()
}

// validateIngressUpdate overlooks, as upstream, what the old object had wrong where
// that was once accepted: names of secrets, and what a wildcard's rule leads to.
func validateIngressUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	var c ingressCheck
	for j := range old.Spec.TLS {
		name := old.Spec.TLS[j].SecretName
		c.anySecret = c.anySecret || name != "" && len(apivalidation.NameIsDNSSubdomain(name, false)) > 0
	}
	for j := range old.Spec.Rules {
		var f kinds.Faults
		checkPaths(&f, &old.Spec.Rules[j], kinds.NewPath("spec"))
		c.anyWildcard = c.anyWildcard || strings.Contains(old.Spec.Rules[j].Host, "*") && !f.None()
	}
	return c.ingress(i)
}

// ingressCheck is what a check overlooks.
type ingressCheck struct{ anySecret, anyWildcard bool }

func (c ingressCheck) ingress(i *networkingv1.Ingress) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &i.Spec
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		f.Invalid(at, spec.Rules, "either `defaultBackend` or `rules` must be specified")
	}
	if spec.DefaultBackend != nil {
		checkBackend(&f, spec.DefaultBackend, at.Child("defaultBackend"))
	}
	for j := range spec.Rules {
		c.rule(&f, &spec.Rules[j], at.Child("rules").Index(j))
	}
	for j, tls := range spec.TLS {
		here := at.Child("tls").Index(j)
		for k, host := range tls.Hosts {
			checkHost(&f, host, here.Child("hosts").Index(k))
		}
		if tls.SecretName != "" && !c.anySecret {
			f.Each(here.Child("secretName"), tls.SecretName, apivalidation.NameIsDNSSubdomain(tls.SecretName, false))
		}
	}
	if spec.IngressClassName != nil {
		f.Each(at.Child("ingressClassName"), *spec.IngressClassName, apivalidation.NameIsDNSSubdomain(*spec.IngressClassName, false))
	}
	return f.List()
}

func checkHost(f *kinds.Faults, host string, at *kinds.Path) {
	if strings.Contains(host, "*") {
		f.Each(at, host, validation.IsWildcardDNS1123Subdomain(host))
		return
	}
	f.Each(at, host, validation.IsDNS1123Subdomain(host))
}

func (c ingressCheck) rule(f *kinds.Faults, r *networkingv1.IngressRule, at *kinds.Path) {
	if r.Host != "" {
		if netutils.ParseIPSloppy(r.Host) != nil {
			f.Invalid(at.Child("host"), r.Host, "must be a DNS name, not an IP address")
		}
		checkHost(f, r.Host, at.Child("host"))
	}
	if !c.anyWildcard || !strings.Contains(r.Host, "*") {
		checkPaths(f, r, at)
	}
}

func checkPaths(f *kinds.Faults, r *networkingv1.IngressRule, at *kinds.Path) {
	if r.HTTP == nil {
		return
	}
	paths := at.Child("http").Child("paths")
	if len(r.HTTP.Paths) == 0 {
		f.Required(paths, "")
	}
	for i := range r.HTTP.Paths {
		checkPath(f, &r.HTTP.Paths[i], paths.Index(i))
	}
}

func checkPath(f *kinds.Faults, p *networkingv1.HTTPIngressPath, at *kinds.Path) {
	if p.PathType == nil {
		f.Required(at.Child("pathType"), "pathType must be specified")
		return
	}
	here := at.Child("path")
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(p.Path, "/") {
			f.Invalid(here, p.Path, "must be an absolute path")
		}
		// Proxies disagree about what these mean.
		for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p.Path, part) {
				f.Invalid(here, p.Path, fmt.Sprintf("must not contain '%s'", part))
			}
		}
		for _, end := range []string{"/..", "/."} {
			if strings.HasSuffix(p.Path, end) {
				f.Invalid(here, p.Path, fmt.Sprintf("cannot end with '%s'", end))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
			f.Invalid(here, p.Path, "must be an absolute path")
		}
	default:
		kinds.OneOf(f, at.Child("pathType"), *p.PathType, networkingv1.PathTypeExact, networkingv1.PathTypePrefix,
			networkingv1.PathTypeImplementationSpecific)
	}
	checkBackend(f, &p.Backend, at.Child("backend"))
}

func checkBackend(f *kinds.Faults, b *networkingv1.IngressBackend, at *kinds.Path) {
	switch {
	case b.Resource != nil && b.Service != nil:
		f.Invalid(at, "", "cannot set both resource and service backends")
	case b.Resource != nil:
		checkReference(f, b.Resource, at.Child("resource"))
	case b.Service != nil:
		checkServiceBackend(f, b.Service, at)
	default:
		f.Invalid(at, "", "resource or service backend is required")
	}
}

func checkServiceBackend(f *kinds.Faults, s *networkingv1.IngressServiceBackend, at *kinds.Path) {
	service := at.Child("service")
	if f.NonEmpty(service.Child("name"), s.Name) {
		f.Each(service.Child("name"), s.Name, validation.IsDNS1123Label(s.Name))
	}
	named, numbered := s.Port.Name != "", s.Port.Number != 0
	switch {
	case named && numbered:
		f.Invalid(at, "", "cannot set both port name & port number")
	case named:
		f.Each(service.Child("port").Child("name"), s.Port.Name, validation.IsValidPortName(s.Port.Name))
	case numbered:
		f.Each(service.Child("port").Child("number"), s.Port.Number, validation.IsValidPortNum(int(s.Port.Number)))
	default:
		f.Required(at, "port name or number is required")
	}
}

func checkReference(f *kinds.Faults, r *corev1.TypedLocalObjectReference, at *kinds.Path) {
	if r.APIGroup != nil {
		f.Each(at.Child("apiGroup"), *r.APIGroup, validation.IsDNS1123Subdomain(*r.APIGroup))
	}
	if f.NonEmpty(at.Child("kind"), r.Kind) {
		f.Each(at.Child("kind"), r.Kind, kinds.PathName(r.Kind, false))
	}
	if f.NonEmpty(at.Child("name"), r.Name) {
		f.Each(at.Child("name"), r.Name, kinds.PathName(r.Name, false))
	}
}

func validateIngressStatus(i, _ *networkingv1.Ingress) field.ErrorList {
	var f kinds.Faults
	for j, point := range i.Status.LoadBalancer.Ingress {
		at := kinds.NewPath("status").Child("loadBalancer").Child("ingress").Index(j)
		if point.IP != "" {
			f.Join(core.ValidateIP(point.IP, at.Child("ip")))
		}
		if point.Hostname == "" {
			continue
		}
		f.Each(at.Child("hostname"), point.Hostname, validation.IsDNS1123Subdomain(point.Hostname))
		if netutils.ParseIPSloppy(point.Hostname) != nil {
			f.Invalid(at.Child("hostname"), point.Hostname, "must be a DNS name, not an IP address")
		}
	}
	return f.List()
}
