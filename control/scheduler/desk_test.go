package scheduler

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client/informer"
)

// Desk is a Scheduler without an API server: events come in as informers bring
// them, and pods that do not fit wait as they do in a real one.
type Desk struct {
	s *Scheduler
	// before is who refused the pods that wait when Missed was called last.
	before map[string]string
}

func NewDesk(p Profile, storage Storage) *Desk {
	w := NewWorld(p)
	w.SetStorage(storage)
	s := &Scheduler{
		log: slog.New(slog.DiscardHandler), cluster: w.c, records: newRecords(), queue: newQueue(backoffMin, backoffMax),
		profiles: map[string]*rules{corev1.DefaultSchedulerName: &w.rules},
	}
	return &Desk{s: s}
}

// Pod, Node and Namespace tell of a change of one; nil is none.
func (d *Desk) Pod(old, now *corev1.Pod) {
	d.s.podChanged(informer.Event[*corev1.Pod]{Old: old, New: now})
}
func (d *Desk) Node(old, now *corev1.Node) {
	d.s.nodeChanged(informer.Event[*corev1.Node]{Old: old, New: now})
}
func (d *Desk) Namespace(old, now *corev1.Namespace) {
	d.s.namespaceChanged(informer.Event[*corev1.Namespace]{Old: old, New: now})
}

// Tell tells of a change of storage or devices.
func (d *Desk) Tell(c Change) { d.s.changed(c) }

// View is what is known.
func (d *Desk) View() View { return d.s.cluster }

// Try makes an attempt for every pod whose turn it is, back-offs set aside, and
// returns the names of those that have a node to go to; they are forgotten.
func (d *Desk) Try() (fit []string) {
	for w := d.s.queue.pop(); w != nil; w = d.s.queue.pop() {
		o := d.decide(w)
		if o.Node != "" {
			fit = append(fit, w.pod.Name)
			d.s.queue.drop(w.pod.UID)
			continue
		}
		if o.failed != nil {
			d.s.queue.again(w, time.Now())
			continue
		}
		w.refused = o.Filters()
		w.heeds, w.own = d.rules().heeds(w.refused)
		d.s.queue.refuse(w, time.Now())
	}
	return fit
}

func (d *Desk) decide(w *waiting) *outcome {
	w.key = d.s.cluster.classKey(w.pod)
	return d.rules().decide(w.pod, w.key, d.s.cluster)
}

func (d *Desk) rules() *rules { return d.s.profiles[corev1.DefaultSchedulerName] }

// Awake are the names of the pods that are about to be tried, in order.
func (d *Desk) Awake() (names []string) {
	for _, w := range d.s.queue.pods {
		if w.heap != nil && w.heap != &d.s.queue.parked {
			names = append(names, w.pod.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Missed are the pods that wait for a change though they would fit somewhere: by name,
// who refused them when they were tried, and who the last time that this was asked.
func (d *Desk) Missed() map[string]string {
	found, now := map[string]string{}, map[string]string{}
	for _, w := range d.s.queue.pods {
		if w.heap != &d.s.queue.parked {
			continue
		}
		o := d.decide(w)
		for _, r := range o.Refusals {
			now[w.pod.Name] += fmt.Sprintf(" %s (%s, %d such)", r.Filter, r.Example, r.Nodes)
		}
		if o.Node != "" {
			found[w.pod.Name] = fmt.Sprintf("fits on %s, was refused by %v, then by%s", o.Node, w.refused, d.before[w.pod.Name])
		}
	}
	d.before = now
	return found
}

// Asleep is how many pods wait for a change.
func (d *Desk) Asleep() int { return d.s.queue.parked.Len() }
