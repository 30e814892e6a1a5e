package scheduler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// reserve takes what the pod needs beside a place on its node: all or nothing.
func (s *Scheduler) reserve(r *rules, w *waiting, o *outcome) (held []Reservation, err error) {
	began := time.Now()
	defer func() { s.metrics.point(pointReserve, w.pod, err, began) }()
	for _, f := range r.filters {
		reserver, ok := f.(Reserver)
		if !ok {
			continue
		}
		taken, err := reserver.Reserve(w.pod, s.cluster.nodes[o.Node], s.cluster)
		if err != nil {
			giveBack(held)
			return nil, err
		}
		if taken != nil {
			held = append(held, taken)
		}
	}
	return held, nil
}

func giveBack(held []Reservation) {
	for i := len(held) - 1; i >= 0; i-- {
		held[i].Release()
	}
}

// prepare does what must be done before the binding is written, and binds. That may
// take minutes, and does not count as work. The end of the pod ends it.
func (s *Scheduler) prepare(ctx context.Context, w *waiting, o *outcome, held []Reservation) {
	pod := w.pod
	h := Hand{Transport: s.cfg.Transport, Event: func(kind, reason, text string) {
		s.events[pod.Spec.SchedulerName].Event(pod, kind, reason, text)
	}}
	preparing, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	took := newEffort(w)
	go func() {
		defer cancel()
		s.atTurn(pod.UID, func() { s.expect(ctx, pod, o.Node) })
		began := time.Now()
		done, err := prepareAll(preparing, h, held)
		s.metrics.point(pointPreBind, pod, err, began)
		if err == nil {
			s.atTurn(pod.UID, func() { err = s.bind(ctx, pod, o) })
		}
		s.metrics.bound(pod, o, took, err)
		if err != nil && ctx.Err() == nil { // whoever comes after us finds what is written, and goes on
			undo(ctx, h, held[:done])
		}
		s.mail.post(func() { s.prepared(w, held, err) })
	}()
}

// expect writes into the pod's status where it is going to be, since getting there
// takes a while: whoever schedules after a restart goes on with that node (KEP-5278).
func (s *Scheduler) expect(ctx context.Context, pod *corev1.Pod, node string) {
	if pod.Status.NominatedNodeName == node {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.writeStatus(ctx, pod, map[string]any{"nominatedNodeName": node}); err != nil {
		s.log.Warn("pod's node not noted", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

// prepareAll prepares one after the other; done counts those that were begun.
func prepareAll(ctx context.Context, h Hand, held []Reservation) (done int, err error) {
	for i, r := range held {
		if err := r.Prepare(ctx, h); err != nil {
			return i + 1, err
		}
	}
	return len(held), nil
}

func undo(ctx context.Context, h Hand, held []Reservation) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for i := len(held) - 1; i >= 0; i-- {
		held[i].Undo(ctx, h)
	}
}

// prepared ends the life of reservations.
func (s *Scheduler) prepared(w *waiting, held []Reservation, err error) {
	if err == nil {
		for _, r := range held {
			r.Keep()
		}
		return
	}
	giveBack(held)
	s.unbound(w, err)
	s.changed(Change{Kind: VolumeChanged | DeviceSliceChanged})
}
