package register

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/agent/tally"
)

// start is when the stages of a new node's way to being ready began, zero for those
// that have not. A Node that was there before is not counted.
type start struct{ boot, agent, first, made, ready time.Time }

// booted is when the machine was started, zero when the kernel doesn't say.
func booted() time.Time {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(since.Nano()))
}

// asked notes that the API server is asked for the Node.
func (s *start) asked(now time.Time) {
	if s.first.IsZero() {
		s.first = now
	}
}

// had notes that the API server has made the Node.
func (s *start) had(counts *tally.Tally, now time.Time) {
	if !s.made.IsZero() {
		return // it was deleted since, and made again
	}
	s.made = now
	if !s.boot.IsZero() {
		counts.Started(tally.BeforeAgent, s.agent.Sub(s.boot))
	}
	counts.Started(tally.BeforeRegistering, s.first.Sub(s.agent))
	counts.Started(tally.Registering, s.made.Sub(s.first))
}

// told notes that the API has the node as ready.
func (s *start) told(counts *tally.Tally, now time.Time) {
	if s.made.IsZero() || !s.ready.IsZero() {
		return
	}
	s.ready = now
	counts.Started(tally.AfterRegistering, s.ready.Sub(s.made))
	if !s.boot.IsZero() {
		counts.Started(tally.WholeStart, s.ready.Sub(s.boot))
	}
}
