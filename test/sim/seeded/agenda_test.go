package seeded

import (
	"cmp"
	"slices"
	"testing/synctest"
	"time"
)

// later puts something on the agenda.
func (w *world) later(d time.Duration, name string, do func()) {
	w.plans++
	w.agenda = append(w.agenda, plan{at: time.Now().Add(d), n: w.plans, name: name, do: do})
	slices.SortFunc(w.agenda, func(a, b plan) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.n, b.n)) })
}

// until lets the world go on until a moment, or until something is wrong.
func (w *world) until(end time.Time) {
	for len(w.wrong) == 0 {
		if w.steps++; w.steps > maxSteps {
			w.fail("the world does not come to rest: %d steps", w.steps)
			return
		}
		synctest.Wait()
		w.check()
		if len(w.agenda) > 0 && !w.agenda[0].at.After(time.Now()) {
			p := w.agenda[0]
			w.agenda = w.agenda[1:]
			w.note("%s", p.name)
			p.do()
			continue
		}
		chosen, next := w.gate.pick(w.trouble, time.Now())
		if chosen != nil {
			v := w.trouble.judge(chosen)
			if v == proceed {
				if other := w.gate.rival(chosen); other != nil {
					w.meet(chosen, other)
					continue
				}
			}
			w.pass(chosen, v)
			continue
		}
		if !time.Now().Before(end) {
			return
		}
		w.idle(end, next)
	}
}

// idle waits for somebody at the gate, for the next plan, or for the end.
func (w *world) idle(end, next time.Time) {
	wake := end
	if len(w.agenda) > 0 && w.agenda[0].at.Before(wake) {
		wake = w.agenda[0].at
	}
	if !next.IsZero() && next.Before(wake) {
		wake = next
	}
	timer := time.NewTimer(time.Until(wake))
	defer timer.Stop()
	select {
	case <-w.gate.arrived:
	case <-timer.C:
	}
}

// check compares acknowledged writes with what is known, and asks the oracle.
func (w *world) check() {
	w.mu.Lock()
	acked := w.acked
	w.acked = nil
	w.mu.Unlock()
	for _, a := range acked {
		w.oracle.acknowledged(a)
	}
	w.oracle.check()
}
