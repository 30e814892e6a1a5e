package serviceip

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func familyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func otherFamily(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// plural keeps clusterIP and clusterIPs in step for clients that know only the
// singular; what they contradict each other in is left for validation.
func plural(s, old *corev1.Service) {
	if old == nil {
		if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
		}
		return
	}
	was, now := &old.Spec, &s.Spec
	if was.ClusterIP == now.ClusterIP {
		if len(now.ClusterIPs) == 0 {
			now.ClusterIPs = slices.Clone(was.ClusterIPs)
		}
		return
	}
	if !slices.Equal(was.ClusterIPs, now.ClusterIPs) {
		return
	}
	now.ClusterIPs = nil // the singular was cleared or changed: the plural follows
	if now.ClusterIP != "" {
		now.ClusterIPs = []string{now.ClusterIP}
	}
}

// adopt gives an update what it left out and the old service has: clients may
// apply the same manifest again.
func adopt(s, old *corev1.Service) {
	if hasAddress(s) && hasAddress(old) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	}
	if usesNodePorts(s) && usesNodePorts(old) {
		adoptPorts(s, old)
	}
	if checksHealth(s) && checksHealth(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

func hasAddress(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeExternalName }

// adoptPorts keeps the node port of each port by its name, unless the update
// gave that number to another.
func adoptPorts(s, old *corev1.Service) {
	used := map[int32]bool{}
	for _, p := range s.Spec.Ports {
		used[p.NodePort] = true
	}
	was := map[string]int32{}
	for _, p := range old.Spec.Ports {
		was[p.Name] = p.NodePort
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if n := was[p.Name]; p.NodePort == 0 && !used[n] {
			p.NodePort = n
		}
	}
}

// families settles policy and families from what was asked and what the cluster
// has, or says what cannot be.
func (a *Allocator) families(s, old *corev1.Service) field.ErrorList {
	if s.Spec.Type == corev1.ServiceTypeExternalName || unchangedPreference(s, old) {
		return nil
	}
	choosePolicy(s, old)
	if errs := shape(s); len(errs) > 0 {
		return errs
	}
	errs := narrow(s, old)
	errs = append(errs, tooMany(s)...)
	errs = append(errs, a.infer(s)...)
	if len(errs) > 0 {
		return errs
	}
	if headless(s) && len(s.Spec.Selector) == 0 {
		a.freeFamilies(s) // nobody routes them: any family will do
		return nil
	}
	if errs := a.available(s); len(errs) > 0 {
		return errs
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{a.prime}
	}
	if *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(s.Spec.IPFamilies) == 1 && len(a.ranges) == 2 {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
	}
	return nil
}

func headless(s *corev1.Service) bool { return s.Spec.ClusterIP == corev1.ClusterIPNone }

// unchangedPreference: a service that prefers two families is not upgraded or
// downgraded by an update that does not say so, whatever the cluster has by now.
func unchangedPreference(s, old *corev1.Service) bool {
	prefers := func(p *corev1.IPFamilyPolicy) bool { return p == nil || *p == corev1.IPFamilyPolicyPreferDualStack }
	return old != nil && s.Spec.IPFamilyPolicy != nil && s.Spec.Type == old.Spec.Type &&
		prefers(s.Spec.IPFamilyPolicy) && prefers(old.Spec.IPFamilyPolicy) &&
		slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) && slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies)
}

func choosePolicy(s, old *corev1.Service) {
	if s.Spec.IPFamilyPolicy != nil {
		return
	}
	policy := corev1.IPFamilyPolicySingleStack
	switch {
	case old != nil && old.Spec.IPFamilyPolicy != nil:
		policy = *old.Spec.IPFamilyPolicy
	case headless(s) && len(s.Spec.Selector) == 0:
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	s.Spec.IPFamilyPolicy = &policy
}

// shape refuses what the rest could not work with; full validation comes later.
func shape(s *corev1.Service) (errs field.ErrorList) {
	path := field.NewPath("spec", "clusterIPs")
	ips := s.Spec.ClusterIPs
	switch {
	case s.Spec.ClusterIP == "" && len(ips) > 0:
		errs = append(errs, field.Invalid(path, ips, "must be empty when `clusterIP` is not specified"))
	case s.Spec.ClusterIP != "" && len(ips) > 0 && ips[0] != s.Spec.ClusterIP:
		errs = append(errs, field.Invalid(path, ips, "first value must match `clusterIP`"))
	case len(ips) > 1 && ips[0] == corev1.ClusterIPNone:
		return append(errs, field.Invalid(path, ips, "'None' must be the first and only value"))
	case len(ips) > 2:
		return append(errs, field.Invalid(path, ips, "may only hold up to 2 values"))
	}
	for i, f := range s.Spec.IPFamilies {
		at := field.NewPath("spec", "ipFamilies").Index(i)
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			errs = append(errs, field.NotSupported(at, f, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
		if slices.Contains(s.Spec.IPFamilies[:i], f) {
			errs = append(errs, field.Duplicate(at, f))
		}
	}
	policies := []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack}
	if p := s.Spec.IPFamilyPolicy; p != nil && !slices.Contains(policies, *p) {
		errs = append(errs, field.NotSupported(field.NewPath("spec", "ipFamilyPolicy"), *p, policies))
	}
	return append(errs, shapeOfAddresses(s, path)...)
}

func shapeOfAddresses(s *corev1.Service, path *field.Path) (errs field.ErrorList) {
	seen := map[corev1.IPFamily]bool{}
	for i, text := range s.Spec.ClusterIPs {
		if text == corev1.ClusterIPNone {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			errs = append(errs, field.Invalid(path.Index(i), text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
			continue
		}
		f := familyOf(addr)
		if seen[f] {
			errs = append(errs, field.Invalid(path, s.Spec.ClusterIPs, "may specify no more than one IP for each IP family"))
		}
		seen[f] = true
		if i < len(s.Spec.IPFamilies) && s.Spec.IPFamilies[i] != f {
			errs = append(errs, field.Invalid(path.Index(i), text, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", s.Spec.IPFamilies[i], i)))
		}
	}
	return errs
}

// narrow lets go of the second family when the policy says so, and refuses to
// when it does not.
func narrow(s, old *corev1.Service) (errs field.ErrorList) {
	if old == nil {
		return nil
	}
	now, was := &s.Spec, &old.Spec
	if *now.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack {
		if slices.Equal(now.ClusterIPs, was.ClusterIPs) && len(now.ClusterIPs) > 1 {
			now.ClusterIPs = now.ClusterIPs[:1]
		}
		if slices.Equal(now.IPFamilies, was.IPFamilies) && len(now.IPFamilies) > 1 {
			now.IPFamilies = now.IPFamilies[:1]
		}
		return nil
	}
	path := field.NewPath("spec", "ipFamilyPolicy")
	if len(now.ClusterIPs) > 0 && len(now.ClusterIPs) < len(was.ClusterIPs) {
		errs = append(errs, field.Invalid(path, now.IPFamilyPolicy, "must be 'SingleStack' to release the secondary cluster IP"))
	}
	if len(now.IPFamilies) > 0 && len(now.IPFamilies) < len(was.IPFamilies) {
		errs = append(errs, field.Invalid(path, now.IPFamilyPolicy, "must be 'SingleStack' to release the secondary IP family"))
	}
	return errs
}

func tooMany(s *corev1.Service) (errs field.ErrorList) {
	if *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		return nil
	}
	path := field.NewPath("spec", "ipFamilyPolicy")
	if len(s.Spec.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(path, s.Spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
	}
	if len(s.Spec.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(path, s.Spec.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
	}
	return errs
}

// infer takes families from the addresses that were asked for.
func (a *Allocator) infer(s *corev1.Service) (errs field.ErrorList) {
	for i := len(s.Spec.IPFamilies); i < len(s.Spec.ClusterIPs); i++ {
		addr, err := netip.ParseAddr(s.Spec.ClusterIPs[i])
		if err != nil {
			return errs // "None"
		}
		f := familyOf(addr)
		if _, ok := a.ranges[f]; !ok {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), s.Spec.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", f)))
			continue
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, f)
	}
	return errs
}

func (a *Allocator) freeFamilies(s *corev1.Service) {
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{a.prime}
	}
	if len(s.Spec.IPFamilies) < 2 && *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
	}
}

func (a *Allocator) available(s *corev1.Service) (errs field.ErrorList) {
	if *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(a.ranges) < 2 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.Spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range s.Spec.IPFamilies {
		if _, ok := a.ranges[f]; !ok {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	return errs
}
