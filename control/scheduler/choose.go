package scheduler

import corev1 "k8s.io/api/core/v1"

// choose scores the feasible nodes and takes one of the best.
func (r *rules) choose(pod *corev1.Pod, k *class, c *cluster, o *outcome) {
	switch len(r.feasible) {
	case 0:
		return
	case 1:
		o.Node = r.feasible[0].host
		o.plugins, o.best = k.names, []ranked{{node: o.Node, parts: make([]int64, len(k.score))}}
		return
	}
	ratings := k.score
	if o.plugins = k.names; len(k.ownScores) > 0 {
		ratings, o.plugins = k.ratings(pod, c)
	}
	r.score(k, ratings)
	r.prioritize(pod)
	highest, equal := r.totals[0], 0
	for _, total := range r.totals {
		switch {
		case total > highest:
			highest, equal = total, 1
		case total == highest:
			equal++
		}
	}
	lot := r.pick.IntN(equal)
	for i, total := range r.totals {
		if total != highest {
			continue
		}
		if lot--; lot < 0 {
			o.Node = r.feasible[i].host
			break
		}
	}
	o.best = r.top(len(ratings), o.Node)
}

// score fills totals and parts: the weighted scores of the feasible nodes.
func (r *rules) score(k *class, ratings []prepared[Rating]) {
	n := len(r.feasible)
	r.totals = resize(r.totals, n)
	clear(r.totals)
	for len(r.parts) < len(ratings) {
		r.parts = append(r.parts, nil)
	}
	k.appraise(r.feasible)
	for i := range ratings {
		s := &ratings[i]
		if surveyor, ok := s.say.(Surveyor); ok {
			surveyor.Survey(r.feasible)
		}
		part := resize(r.parts[i], n)
		k.rates(i, s.say, r.feasible, part)
		s.say.Normalise(r.feasible, part)
		for at := range part {
			part[at] *= s.weight
			r.totals[at] += part[at]
		}
		r.parts[i] = part
	}
}

// top are the best nodes, the chosen one first.
func (r *rules) top(plugins int, chosen string) []ranked {
	var at [maxScored]int
	found := 0
	for i, total := range r.totals {
		if found == maxScored && total <= r.totals[at[found-1]] && r.feasible[i].host != chosen {
			continue
		}
		to := min(found, maxScored-1)
		for to > 0 && (r.totals[at[to-1]] < total || r.totals[at[to-1]] == total && r.feasible[i].host == chosen) {
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
		for p := range mine {
			mine[p] = r.parts[p][i]
		}
		best[rank] = ranked{r.feasible[i].host, r.totals[i], mine}
	}
	return best
}

func resize(s []int64, n int) []int64 {
	if cap(s) < n {
		return make([]int64, n, n+n/4)
	}
	return s[:n]
}
