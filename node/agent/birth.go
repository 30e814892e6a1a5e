package agent

import (
	"slices"
	"time"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// birth is what the counts need to know of a pod's way to running. It is the owner's.
type birth struct {
	// seen is when the agent saw the pod.
	seen time.Time
	// looked: the pod was looked at before.
	looked bool
	// pulls are when images were pulled for it.
	pulls []span
	// told: its start is counted, or never will be.
	told bool
	// changed is since when its status differs from what the API has, zero when it
	// does not.
	changed time.Time
}

// span is a time from one moment to another.
type span struct{ from, until time.Time }

// purpose is what a look at the pod was for.
func (b *birth) purpose(s stage, news bool) string {
	first := !b.looked
	b.looked = true
	switch {
	case s > serving:
		return tally.Terminated
	case first:
		return tally.Create
	case news:
		return tally.Update
	}
	return tally.Sync
}

// covered is how much time lies within spans, what they share counted once.
func covered(spans []span) time.Duration {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	sum, end := time.Duration(0), time.Time{}
	for _, s := range spans {
		if s.from.Before(end) {
			s.from = end
		}
		if s.until.After(s.from) {
			sum, end = sum+s.until.Sub(s.from), s.until
		}
	}
	return sum
}

// began counts the pod's start once the API knows that all its containers run: from
// its creation, as upstream's latency tracker has it. A pod that ran here before this
// agent did is never counted, nor a static one.
func (m *machine) began() {
	if m.birth.told || !m.written {
		return
	}
	if !m.fresh || m.stage != serving || m.pod.CreationTimestamp.IsZero() { // nobody created a static pod
		m.birth.told, m.birth.pulls = true, nil
		return
	}
	for i := range m.pod.Spec.Containers {
		if c := m.now.Latest(m.pod.Spec.Containers[i].Name); c == nil || c.State != actual.Running {
			return
		}
	}
	excused := covered(m.birth.pulls)
	for i := range m.pod.Spec.InitContainers {
		c := m.now.Latest(m.pod.Spec.InitContainers[i].Name)
		if c != nil && c.State == actual.Exited && !spec.Sidecar(&m.pod.Spec.InitContainers[i]) {
			excused += c.Finished.Sub(c.Started)
		}
	}
	m.a.tally.PodBegan(m.pod, tally.Start{Total: time.Since(m.pod.CreationTimestamp.Time), Excused: excused})
	m.birth.told, m.birth.pulls = true, nil
}

// settle counts how long the API had to wait for the newest status.
func (m *machine) settle() {
	switch {
	case !m.written && m.birth.changed.IsZero():
		m.birth.changed = time.Now()
	case m.written && !m.birth.changed.IsZero():
		m.a.tally.StatusSent(time.Since(m.birth.changed))
		m.birth.changed = time.Time{}
	}
}
