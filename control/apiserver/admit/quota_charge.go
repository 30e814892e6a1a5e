package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/kinds/quota"
)

// countable says whether a request may change what is used.
func countable(a *resource.Attributes) bool {
	created := a.Operation == resource.OpCreate && a.Target.Subresource == ""
	updated := a.Operation == resource.OpUpdate && a.Target.Subresource == ""
	switch {
	case is(a, "", "services"), is(a, resourcev1.GroupName, "resourceclaims"):
		return created || updated
	case is(a, "", "persistentvolumeclaims"):
		return created || updated || a.Operation == resource.OpUpdate && a.Target.Subresource == "status" && claimMoved(a)
	case is(a, "", "pods"):
		return created || updated && podMoved(a) || a.Operation == resource.OpUpdate && a.Target.Subresource == "resize"
	}
	return created
}

func claimMoved(a *resource.Attributes) bool {
	now, ok1 := a.Object.(*corev1.PersistentVolumeClaim)
	old, ok2 := a.Old.(*corev1.PersistentVolumeClaim)
	return ok1 && ok2 && quota.ClaimChanged(now, old)
}

// podMoved: a pod that gets a deadline comes under other quotas.
func podMoved(a *resource.Attributes) bool {
	now, ok1 := a.Object.(*corev1.Pod)
	old, ok2 := a.Old.(*corev1.Pod)
	return ok1 && ok2 && quota.Terminating(now) != quota.Terminating(old)
}

// charge says what a bill adds to which quota, beyond what has been booked for it
// already, or why it is refused.
func (l *ledger) charge(s *sheet, b *bill) (map[string]corev1.ResourceList, error) {
	var covering []*corev1.ResourceQuota
	covered := coverage{}
	for _, name := range s.names() {
		q := s.quotas[name]
		covered.scopes = append(covered.scopes, matching(b, quota.Scopes(q))...)
		capped := b.meter.Measures(quota.Names(q.Status.Hard))
		if len(capped) == 0 || !b.meter.Scoped(q, b.a.Object) {
			continue
		}
		if err := b.meter.Missing(capped, b.a.Object); err != nil {
			return nil, b.refuse(fmt.Errorf("failed quota: %s: %w", name, err))
		}
		if slices.ContainsFunc(capped, func(r corev1.ResourceName) bool { _, ok := q.Status.Used[r]; return !ok }) {
			return nil, b.refuse(fmt.Errorf("status unknown for quota: %s, resources: %s", name, quota.ShowNames(capped)))
		}
		covering = append(covering, q)
		covered.names = append(covered.names, capped...)
	}
	used := b.meter.Usage(b.a.Object, l.now())
	if below := quota.Negative(used); len(below) > 0 {
		return nil, b.refuse(fmt.Errorf("quota usage is negative for resource(s): %s", quota.ShowNames(below)))
	}
	changes := map[string]corev1.ResourceList{}
	for _, q := range covering {
		if more := l.more(b, used, q); len(more) > 0 {
			changes[q.Name] = more
		}
	}
	if err := l.uncovered(b, used, covered, len(covering) == 0 || len(changes) > 0); err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(changes) {
		if _, done := b.booked[name]; done {
			delete(changes, name)
			continue
		}
		changes[name] = quota.Only(changes[name], quota.Names(s.quotas[name].Status.Hard))
		if err := b.fits(s.quotas[name], changes[name]); err != nil {
			return nil, err
		}
		if len(changes[name]) == 0 {
			delete(changes, name)
		}
	}
	return changes, nil
}

// more is what the request uses and the old object did not. An object that comes
// under a quota only now is charged whole.
func (l *ledger) more(b *bill, used corev1.ResourceList, q *corev1.ResourceQuota) corev1.ResourceList {
	if b.a.Operation != resource.OpUpdate || !b.meter.Scoped(q, b.a.Old) {
		return quota.Rise(nil, used)
	}
	return quota.Rise(b.meter.Usage(b.a.Old, l.now()), used)
}

// fits refuses what exceeds the quota. What a status tells has happened already.
func (b *bill) fits(q *corev1.ResourceQuota, more corev1.ResourceList) error {
	if b.a.Target.Subresource == "status" {
		return nil
	}
	names := quota.Names(more)
	over := quota.Over(quota.Only(quota.Add(q.Status.Used, more), names), q.Status.Hard)
	if len(over) == 0 {
		return nil
	}
	return b.refuse(fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
		quota.Show(quota.Only(more, over)), quota.Show(quota.Only(q.Status.Used, over)), quota.Show(quota.Only(q.Status.Hard, over))))
}

func (b *bill) refuse(err error) error { return b.a.Forbidden(err) }

// coverage is what the quotas that cover an object cap, and their scopes that it
// falls into.
type coverage struct {
	names  []corev1.ResourceName
	scopes []quota.Requirement
}

// uncovered refuses the use of what may only be used under a quota.
func (l *ledger) uncovered(b *bill, used corev1.ResourceList, covered coverage, uses bool) error {
	if !uses || len(l.limits) == 0 {
		return nil
	}
	var names []string
	var scopes []quota.Requirement
	for _, limit := range l.limits {
		for _, r := range matching(b, limit.MatchScopes) {
			if !slices.ContainsFunc(covered.scopes, func(c quota.Requirement) bool { return c.ScopeName == r.ScopeName }) {
				scopes = append(scopes, r)
			}
		}
		if limit.Resource != b.meter.Resource {
			continue
		}
		for _, name := range quota.Names(quota.Rise(nil, used)) {
			hit := slices.ContainsFunc(limit.MatchContains, func(part string) bool { return strings.Contains(string(name), part) })
			if hit && !slices.Contains(covered.names, name) {
				names = append(names, string(name))
			}
		}
	}
	if len(names) > 0 {
		return b.refuse(fmt.Errorf("insufficient quota to consume: %s", strings.Join(slices.Compact(sorted(names)), ",")))
	}
	if len(scopes) > 0 {
		return fmt.Errorf("insufficient quota to match these scopes: %v", scopes)
	}
	return nil
}

// matching are the conditions that the bill's object meets.
func matching(b *bill, all []quota.Requirement) (met []quota.Requirement) {
	for _, r := range all {
		if b.meter.InScope(r, b.a.Object) {
			met = append(met, r)
		}
	}
	return met
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}

// devices looks up what resource claims are measured by.
type devices struct {
	ctx       context.Context //nolint:containedctx // it lives as long as one question
	objects   Reader
	namespace string
}

func (d devices) classes() []*resourcev1.DeviceClass {
	all, err := listed[*resourcev1.DeviceClass](d.ctx, d.objects, group(resourcev1.SchemeGroupVersion, "deviceclasses", ""))
	if err != nil {
		return nil // not served
	}
	return all
}

// ExtendedResource implements quota.Devices.
func (d devices) ExtendedResource(class string) string {
	for _, c := range d.classes() {
		if c.Name == class && c.Spec.ExtendedResourceName != nil {
			return *c.Spec.ExtendedResourceName
		}
	}
	return ""
}

// HasClass implements quota.Devices.
func (d devices) HasClass(extended string) bool {
	return slices.ContainsFunc(d.classes(), func(c *resourcev1.DeviceClass) bool {
		return c.Spec.ExtendedResourceName != nil && *c.Spec.ExtendedResourceName == extended
	})
}

// PodUsage implements quota.Devices.
func (d devices) PodUsage(claim *resourcev1.ResourceClaim) corev1.ResourceList {
	owner, ok := quota.PodOf(claim)
	if !ok {
		return nil
	}
	obj, err := cached(d.ctx, d.objects, core("pods", d.namespace, owner.Name))
	if err != nil {
		return nil
	}
	pod, _ := obj.(*corev1.Pod)
	owned, err := listed[*resourcev1.ResourceClaim](d.ctx, d.objects, group(resourcev1.SchemeGroupVersion, "resourceclaims", d.namespace))
	if err != nil || !quota.ChargedTo(claim, pod, owned) {
		return nil
	}
	return quota.For(corev1.Resource("pods"), nil).Usage(pod, pod.CreationTimestamp.Time)
}
