package proxy

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// claim is one service's wish for a front.
type claim struct {
	service types.NamespacedName
	created time.Time
	backing backing
}

// state is what the tables should hold. Two services may claim one front (an
// external IP, say): the older one has it until it lets go. It belongs to one
// goroutine.
type state struct {
	site   *site
	fronts map[types.NamespacedName][]front
	claims map[front][]claim // the first one has it
	shown  map[front][]element
	want   map[slot]wanted
	// dirty are the slots, and fronts the fronts, that changed since the last
	// time somebody cleared them.
	dirty   map[slot]struct{}
	changed map[front]struct{}
}

// wanted is an element's value and how many fronts need it.
type wanted struct {
	value string
	n     int
}

func newState(s *site) *state {
	return &state{
		site:    s,
		fronts:  map[types.NamespacedName][]front{},
		claims:  map[front][]claim{},
		shown:   map[front][]element{},
		want:    map[slot]wanted{},
		dirty:   map[slot]struct{}{},
		changed: map[front]struct{}{},
	}
}

// set replaces what a service asks for; nil takes everything back.
func (s *state) set(service types.NamespacedName, created time.Time, planned map[front]backing) {
	touched := s.fronts[service]
	for _, f := range touched {
		s.claims[f] = slices.DeleteFunc(s.claims[f], func(c claim) bool { return c.service == service })
	}
	delete(s.fronts, service)
	for f, b := range planned {
		s.claims[f] = append(s.claims[f], claim{service, created, b})
		slices.SortFunc(s.claims[f], older)
		s.fronts[service] = append(s.fronts[service], f)
	}
	for _, f := range append(touched, s.fronts[service]...) {
		s.show(f)
	}
}

func older(a, b claim) int {
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.service.String(), b.service.String()))
}

// show makes the wanted elements those of the front's first claim.
func (s *state) show(f front) {
	var next []element
	if len(s.claims[f]) == 0 {
		delete(s.claims, f)
	} else {
		next = render(f, s.claims[f][0].backing, s.site)
	}
	if slices.Equal(s.shown[f], next) {
		return
	}
	s.changed[f] = struct{}{}
	for _, e := range s.shown[f] {
		s.dirty[e.slot] = struct{}{}
		if w := s.want[e.slot]; w.n > 1 {
			s.want[e.slot] = wanted{w.value, w.n - 1}
		} else {
			delete(s.want, e.slot)
		}
	}
	for _, e := range next {
		s.dirty[e.slot] = struct{}{}
		s.want[e.slot] = wanted{e.value, s.want[e.slot].n + 1}
	}
	if len(next) == 0 {
		delete(s.shown, f)
	} else {
		s.shown[f] = next
	}
}

// diff says which elements lead from have to what is wanted, looking at the
// dirty slots only, or at all.
func (s *state) diff(have map[slot]string, all bool) (del, add []element) {
	check := func(at slot) {
		w, wants := s.want[at]
		value, has := have[at]
		if wants && has && w.value == value {
			return
		}
		if has {
			del = append(del, element{at, value})
		}
		if wants {
			add = append(add, element{at, w.value})
		}
	}
	if !all {
		for at := range s.dirty {
			check(at)
		}
		return del, add
	}
	for at := range s.want {
		check(at)
	}
	for at := range have {
		if _, wants := s.want[at]; !wants {
			check(at)
		}
	}
	return del, add
}

// clear forgets what changed: the tables have it now.
func (s *state) clear() {
	clear(s.dirty)
	clear(s.changed)
}
