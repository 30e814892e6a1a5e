package scheduler

import "slices"

// heeds are the changes that may let in a pod that these filters refused. own says
// that some of them look at what the pod itself names.
func (r *rules) heeds(refused []string) (kinds ChangeKind, own bool) {
	if !r.ours(refused) {
		return ^ChangeKind(0), false
	}
	for _, f := range r.filters {
		if slices.Contains(refused, f.Name()) {
			kinds |= f.Heeds()
			own = own || f.Depends() == OnItself
		}
	}
	return kinds, own
}

// ours says whether filters alone refused: what changes an extender's mind is not
// known, so anything may.
func (r *rules) ours(refused []string) bool {
	for _, name := range refused {
		if !slices.ContainsFunc(r.filters, func(f Filter) bool { return f.Name() == name }) {
			return false
		}
	}
	return len(refused) > 0
}

// helps asks the filters that refused a pod whether a change may let it in.
func (r *rules) helps(w *waiting, c Change, v View) bool {
	if !r.ours(w.refused) {
		return true
	}
	return slices.ContainsFunc(r.filters, func(f Filter) bool {
		return f.Heeds()&c.Kind != 0 && slices.Contains(w.refused, f.Name()) && f.Helps(w.pod, c, v)
	})
}
