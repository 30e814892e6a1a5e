package device

import (
	"maps"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
)

// SetSlice takes over a slice; a nil now forgets it. It returns the slice before
// and after, with taint rules applied.
func (l *Ledger) SetSlice(old, now *resourcev1.ResourceSlice) (before, after *resourcev1.ResourceSlice) {
	if now == nil {
		before = l.patched[old.Name]
		delete(l.slices, old.Name)
		delete(l.patched, old.Name)
		l.list = nil
		return before, nil
	}
	before = l.patched[now.Name]
	l.slices[now.Name] = now
	after = l.patch(now)
	l.patched[now.Name], l.list = after, nil
	return before, after
}

// SetRule takes over a taint rule; a nil now forgets it. It says whether any device
// has other taints since.
func (l *Ledger) SetRule(old, now *resourcev1.DeviceTaintRule) (news bool) {
	if now == nil {
		delete(l.rules, old.Name)
	} else {
		l.rules[now.Name] = now
	}
	for name, s := range l.slices {
		if old != nil && means(old, s) || now != nil && means(now, s) {
			l.patched[name], l.list = l.patch(s), nil
			news = true
		}
	}
	return news
}

// means says whether a rule may be about devices of a slice.
func means(r *resourcev1.DeviceTaintRule, s *resourcev1.ResourceSlice) bool {
	by := r.Spec.DeviceSelector
	return by != nil && (by.Driver == nil || *by.Driver == s.Spec.Driver) && (by.Pool == nil || *by.Pool == s.Spec.Pool.Name)
}

// patch adds the taints that rules give to the devices of a slice.
func (l *Ledger) patch(s *resourcev1.ResourceSlice) *resourcev1.ResourceSlice {
	out := s
	for _, name := range slices.Sorted(maps.Keys(l.rules)) {
		r := l.rules[name]
		if !means(r, s) {
			continue
		}
		for i := range s.Spec.Devices {
			if only := r.Spec.DeviceSelector.Device; only != nil && *only != s.Spec.Devices[i].Name {
				continue
			}
			if out == s {
				out = s.DeepCopy()
			}
			out.Spec.Devices[i].Taints = append(out.Spec.Devices[i].Taints, r.Spec.Taint)
		}
	}
	return out
}

// Slices are all slices with taint rules applied, by name. Nobody changes the list.
func (l *Ledger) Slices() []*resourcev1.ResourceSlice {
	if l.list == nil && len(l.patched) > 0 {
		for _, name := range slices.Sorted(maps.Keys(l.patched)) {
			l.list = append(l.list, l.patched[name])
		}
	}
	return l.list
}
