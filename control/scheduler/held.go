package scheduler

import (
	corev1 "k8s.io/api/core/v1"
)

// TermKind is what a pod's affinity term does.
type TermKind int

// The kinds of terms.
const (
	RequiredNear TermKind = iota
	RequiredFar
	PreferredNear
	PreferredFar
)

// HeldTerm is an affinity term that pods on nodes have, with where they are.
type HeldTerm struct {
	Term
	Kind TermKind
	*Tally
	holders int
}

// Held are the different affinity terms that the pods on nodes have: the other
// side of inter-pod affinity, kept current as pods come and go.
type Held struct {
	// terms only grows until epoch does; a term without holders stays, and
	// counts nothing.
	terms []*HeldTerm
	dead  int
	epoch int
}

// Epoch changes when terms seen before are to be looked at again: they were
// sorted out, or a namespace has other labels.
func (h *Held) Epoch() int { return h.epoch }

// Since returns the terms that have come since there were seen of them.
func (h *Held) Since(seen int) []*HeldTerm { return h.terms[seen:] }

// maxDead is how many terms without holders are put up with.
const maxDead = 256

// holding is what pods with the same affinity hold: those of one namespace, if any
// term is about their own.
type holding struct {
	key   string
	terms []*HeldTerm
	pods  int
}

// hold returns what a pod's affinity makes it hold on its node; nil for none.
func (c *cluster) hold(pod *corev1.Pod) *holding {
	a := pod.Spec.Affinity
	if a == nil || a.PodAffinity == nil && a.PodAntiAffinity == nil {
		return nil
	}
	only := corev1.Affinity{PodAffinity: a.PodAffinity, PodAntiAffinity: a.PodAntiAffinity}
	raw, err := only.Marshal()
	if err != nil {
		return nil // it was read from the same encoding
	}
	key := string(raw)
	if ownNamespace(&only) {
		key = pod.Namespace + "/" + key
	}
	h, ok := c.holdings[key]
	if !ok {
		h = &holding{key: key}
		h.take(c, Required(pod, false), RequiredNear)
		h.take(c, Required(pod, true), RequiredFar)
		h.take(c, Preferred(pod, false), PreferredNear)
		h.take(c, Preferred(pod, true), PreferredFar)
		if len(h.terms) == 0 {
			return nil
		}
		c.holdings[key] = h
	}
	h.pods++
	return h
}

func (h *holding) take(c *cluster, terms []Term, kind TermKind) {
	for _, t := range terms {
		held := &HeldTerm{Term: t, Kind: kind, Tally: c.newTally(Count{Key: t.Key})}
		for _, n := range c.Nodes() {
			held.join(n)
		}
		h.terms = append(h.terms, held)
		c.held.terms = append(c.held.terms, held)
	}
}

// release lets go of what a pod held.
func (c *cluster) release(h *holding) {
	if h == nil {
		return
	}
	if h.pods--; h.pods > 0 {
		return
	}
	delete(c.holdings, h.key)
	c.held.dead += len(h.terms)
	for _, t := range h.terms {
		t.holders = -1
	}
	if c.held.dead <= maxDead {
		return
	}
	var living []*HeldTerm
	for _, t := range c.held.terms {
		if t.holders >= 0 {
			living = append(living, t)
		}
	}
	c.held.terms, c.held.dead = living, 0
	c.held.epoch++
}
