package scheduler

import (
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/control/scheduler/device"
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
	return &Outcome{Decision: w.rules.decide(p, w.c.classKey(p), w.c).full(), w: w, pod: p}
}

// Outcome is a decision as a transcript sees it.
type Outcome struct {
	Decision
	w   *World
	pod *corev1.Pod
}

// Preempt makes room, and says how, or says the sentence of the pod's condition.
func (o *Outcome) Preempt(budgets []*policyv1.PodDisruptionBudget) (node string, victims []string, text string) {
	again := o.w.rules.decide(o.pod, o.w.c.classKey(o.pod), o.w.c)
	found, how := o.w.rules.preempt(o.pod, o.w.c.classKey(o.pod), o.w.c, again, budgets)
	if found == nil {
		return "", nil, again.sentence(how)
	}
	for _, v := range found.victims {
		victims = append(victims, v.Name)
	}
	return found.node, victims, how
}

// Put decides and places: what a scheduler does all day.
func (w *World) Put(p *corev1.Pod) string {
	o := w.rules.decide(p, w.c.classKey(p), w.c)
	if o.Node != "" {
		w.c.place(p, o.Node)
	}
	return o.Node
}

// Helps asks one filter about a change.
func (w *World) Helps(filter string, p *corev1.Pod, c Change) (heeds, helps bool) {
	for _, f := range w.rules.filters {
		if f.Name() == filter {
			return f.Heeds()&c.Kind != 0, f.Helps(p, c, w.c)
		}
	}
	panic("no filter " + filter)
}

// Filters are the names of the filters.
func (w *World) Filters() (names []string) {
	for _, f := range w.rules.filters {
		names = append(names, f.Name())
	}
	return names
}

// Heeds are the kinds of change that a filter takes notice of.
func (w *World) Heeds(filter string) (kinds ChangeKind) {
	kinds, _ = w.rules.heeds([]string{filter})
	return kinds
}

// Devices are the books.
func (w *World) Devices() *device.Ledger { return w.c.devices }

// Line is a queue beside a World.
type Line struct {
	w     *World
	q     *queue
	asked int
}

func (w *World) NewLine() *Line { return &Line{w: w, q: newQueue(backoffMin, backoffMax)} }

// Try decides about a new pod; it waits when it is refused.
func (l *Line) Try(p *corev1.Pod, now time.Time) (node string) {
	x := l.q.put(p, now)
	l.q.pop()
	return l.try(x, now)
}

func (l *Line) try(x *waiting, now time.Time) string {
	if x.key == "" {
		x.key = l.w.c.classKey(x.pod)
	}
	o := l.w.rules.decide(x.pod, x.key, l.w.c)
	if o.Node != "" {
		return o.Node
	}
	x.refused = o.Filters()
	x.heeds, x.own = l.w.rules.heeds(x.refused)
	l.q.refuse(x, now)
	return ""
}

// Change tells of a change, and returns how many pods are to be tried again.
func (l *Line) Change(c Change, now time.Time) (moved int) {
	before := l.q.eager.Len()
	l.q.help(now, c, func(x *waiting) bool {
		l.asked++
		return l.w.rules.helps(x, c, l.w.c)
	})
	return l.q.eager.Len() - before
}

// Asked is how often a pod was held against a change.
func (l *Line) Asked() int { return l.asked }

// Woken are the pods that are tried at a moment, and are refused again.
func (l *Line) Woken(now time.Time) (n int) {
	l.q.wake(now)
	for {
		x := l.q.pop()
		if x == nil {
			return n
		}
		n++
		l.try(x, now)
	}
}
