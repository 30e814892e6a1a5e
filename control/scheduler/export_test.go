package scheduler

import (
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// World lets the transcripts drive decisions without an API server.
type World struct {
	c     *cluster
	rules rules
}

func NewWorld(p Profile) *World {
	return &World{c: newCluster(), rules: rules{
		filters: p.Filters, scores: p.Scores, percentage: p.PercentageOfNodesToScore, pick: rand.New(rand.NewPCG(1, 0)),
	}}
}

func (w *World) SetNode(n *corev1.Node)                       { w.c.setNode(n) }
func (w *World) SetNamespace(n string, set map[string]string) { w.c.setNamespace(n, set) }
func (w *World) SetStorage(s Storage)                         { w.c.storage = s }
func (w *World) SetSelector(f func(*corev1.Pod) labels.Selector) {
	w.c.selector = f
	w.rules.forgetOwned(w.c)
}
func (w *World) RemoveNode(name string)              { w.c.removeNode(name) }
func (w *World) Place(p *corev1.Pod, node string)    { w.c.place(p, node) }
func (w *World) Lift(p *corev1.Pod)                  { w.c.lift(p.UID) }
func (w *World) Nominate(p *corev1.Pod, node string) { w.c.nominate(p, node) }

func (w *World) Decide(p *corev1.Pod) *Outcome {
	return &Outcome{Decision: w.rules.decide(p, classKey(p), w.c).full(), w: w, pod: p}
}

// Outcome is a decision as a transcript sees it.
type Outcome struct {
	Decision
	w   *World
	pod *corev1.Pod
}

// Preempt makes room, or says the sentence of the pod's condition.
func (o *Outcome) Preempt(budgets []*policyv1.PodDisruptionBudget) (node string, victims []string, text string) {
	again := o.w.rules.decide(o.pod, classKey(o.pod), o.w.c)
	found, how := o.w.rules.preempt(o.pod, classKey(o.pod), o.w.c, again, budgets)
	if found == nil {
		return "", nil, again.sentence(how)
	}
	for _, v := range found.victims {
		victims = append(victims, v.Name)
	}
	return found.node, victims, ""
}

// Put decides and places: what a scheduler does all day.
func (w *World) Put(p *corev1.Pod) string {
	o := w.rules.decide(p, classKey(p), w.c)
	if o.Node != "" {
		w.c.place(p, o.Node)
	}
	return o.Node
}
