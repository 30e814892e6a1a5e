package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ratings are the scores of a pod whose own must be asked, with their names.
func (k *class) ratings(pod *corev1.Pod, v View) ([]prepared[Rating], []string) {
	all, names := slices.Clone(k.score), slices.Clone(k.names)
	for _, s := range k.ownScores {
		if rating := s.For(pod, v); rating != nil {
			all = append(all, prepared[Rating]{name: s.Name(), depends: OnItself, weight: s.Weight(), say: rating})
			names = append(names, s.Name())
		}
	}
	return all, names
}

// rates gives the raw numbers of one score for the nodes found, and says whether
// they are all the same.
func (k *class) rates(i int, say Rating, into []int64, found []int32, c *cluster) (same bool) {
	var raw []int64
	if i < len(k.raw) {
		raw = k.raw[i]
	}
	same = true
	for at, slot := range found {
		if int(slot) < len(raw) {
			into[at] = raw[slot]
		} else {
			into[at] = say.Rate(c.slots[slot])
		}
		same = same && into[at] == into[0]
	}
	return same
}

// appraise brings the kept numbers of the nodes found up to date.
func (k *class) appraise(found []int32, c *cluster) {
	for _, slot := range found {
		if int(slot) >= len(k.known) || k.known[slot].scored == c.states[slot] {
			continue
		}
		k.known[slot].scored = c.states[slot]
		for i := range k.score {
			if k.score[i].depends != OnCluster {
				k.raw[i][slot] = k.score[i].say.Rate(c.slots[slot])
			}
		}
		k.sums[slot] = k.sum(slot, c)
	}
}

// total gives the sums of the plain scores for the nodes found.
func (k *class) total(found []int32, into []int64, c *cluster) {
	for at, slot := range found {
		if int(slot) < len(k.sums) {
			into[at] = k.sums[slot]
		} else {
			into[at] = k.sum(slot, c)
		}
	}
}

// sum adds up the plain scores of one node.
func (k *class) sum(slot int32, c *cluster) (total int64) {
	for i := range k.score {
		if k.plain[i] {
			total += k.part(i, slot, c)
		}
	}
	return total
}

// part is what a plain score says of one node, weighted.
func (k *class) part(i int, slot int32, c *cluster) int64 {
	if int(slot) < len(k.raw[i]) {
		return k.raw[i][slot] * k.score[i].weight
	}
	return k.score[i].say.Rate(c.slots[slot]) * k.score[i].weight
}
