package scheduler

import (
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
)

// World lets the transcripts drive decisions without an API server.
type World struct {
	c     *cluster
	rules rules
}

func NewWorld(filters []Filter, scores []Score) *World {
	return &World{c: newCluster(), rules: rules{filters: filters, scores: scores, pick: rand.New(rand.NewPCG(1, 0))}}
}

func (w *World) SetNode(n *corev1.Node)              { w.c.setNode(n) }
func (w *World) RemoveNode(name string)              { w.c.removeNode(name) }
func (w *World) Place(p *corev1.Pod, node string)    { w.c.place(p, node) }
func (w *World) Nominate(p *corev1.Pod, node string) { w.c.nominate(p, node) }
func (w *World) Decide(p *corev1.Pod) Decision       { return w.rules.decide(p, w.c) }

func (w *World) Preempt(p *corev1.Pod, d *Decision, budgets []*policyv1.PodDisruptionBudget) (node string, victims []string, text string) {
	found, text := w.rules.preempt(p, w.c, d, budgets)
	if found == nil {
		return "", nil, text
	}
	for _, v := range found.victims {
		victims = append(victims, v.Name)
	}
	return found.node, victims, ""
}
