package scheduler

import corev1 "k8s.io/api/core/v1"

// choose scores the feasible nodes and takes one of the best.
func (r *rules) choose(pod *corev1.Pod, k *class, c *cluster, o *outcome) {
	switch len(r.found) {
	case 0:
		return
	case 1:
		o.Node = c.slots[r.found[0]].host
		o.plugins, o.best = k.names, []ranked{{node: o.Node, parts: make([]int64, len(k.score))}}
		return
	}
	ratings := k.score
	if o.plugins = k.names; len(k.ownScores) > 0 {
		ratings, o.plugins = k.ratings(pod, c)
	}
	r.score(k, ratings, c)
	r.prioritize(pod, c)
	highest, equal := r.totals[0], 0
	for _, total := range r.totals {
		switch {
		case total > highest:
			highest, equal = total, 1
		case total == highest:
			equal++
		}
	}
	lot, chosen := r.pick.IntN(equal), 0
	for i, total := range r.totals {
		if total != highest {
			continue
		}
		if lot--; lot < 0 {
			chosen = i
			break
		}
	}
	o.Node = c.slots[r.found[chosen]].host
	o.best = r.top(k, len(ratings), chosen, c)
}

// score fills totals and parts: the weighted scores of the feasible nodes. Plain ones
// have been added up before, and have no parts. Of those that are the same for all it
// notes what they are, and leaves the totals alone.
func (r *rules) score(k *class, ratings []prepared[Rating], c *cluster) {
	n := len(r.found)
	r.totals = resize(r.totals, n)
	for len(r.parts) < len(ratings) {
		r.parts = append(r.parts, nil)
	}
	r.flat = resize(r.flat, len(ratings))
	k.appraise(r.found, c)
	k.total(r.found, r.totals, c)
	for i := range ratings {
		s := &ratings[i]
		if i < len(k.plain) && k.plain[i] {
			continue
		}
		if q, ok := s.say.(QuietRating); ok && q.Quiet() {
			r.parts[i], r.flat[i] = r.parts[i][:0], 0
			continue
		}
		if surveyor, ok := s.say.(Surveyor); ok {
			surveyor.Survey(r.fit(c))
		}
		part := resize(r.parts[i], n)
		r.parts[i] = part
		same, byNumbers := k.rates(i, s.say, part, r.found, c), s.depends <= OnPods
		switch {
		case same && byNumbers:
			s.say.Normalise(nil, part[:1])
			r.parts[i], r.flat[i] = part[:0], part[0]*s.weight
			continue // the same for all: nobody is ahead by it
		case byNumbers:
			s.say.Normalise(nil, part)
		default:
			s.say.Normalise(r.fit(c), part)
		}
		for at := range part {
			part[at] *= s.weight
			r.totals[at] += part[at]
		}
	}
}

// top are the best nodes, the chosen one first.
func (r *rules) top(k *class, plugins, chosen int, c *cluster) []ranked {
	var at [maxScored]int
	found := 0
	for i, total := range r.totals {
		if found == maxScored && total <= r.totals[at[found-1]] && i != chosen {
			continue
		}
		to := min(found, maxScored-1)
		for to > 0 && (r.totals[at[to-1]] < total || r.totals[at[to-1]] == total && i == chosen) {
			at[to] = at[to-1]
			to--
		}
		at[to] = i
		found = min(found+1, maxScored)
	}
	best := make([]ranked, found)
	parts := make([]int64, found*plugins)
	for rank, i := range at[:found] {
		mine := parts[rank*plugins : (rank+1)*plugins]
		total := r.totals[i]
		for p := range mine {
			switch {
			case p < len(k.plain) && k.plain[p]:
				mine[p] = k.part(p, r.found[i], c)
			case len(r.parts[p]) == 0: // flat, and not in the totals
				mine[p] = r.flat[p]
				total += mine[p]
			default:
				mine[p] = r.parts[p][i]
			}
		}
		best[rank] = ranked{c.slots[r.found[i]].host, total, mine}
	}
	return best
}

func resize(s []int64, n int) []int64 {
	if cap(s) < n {
		return make([]int64, n, n+n/4)
	}
	return s[:n]
}
