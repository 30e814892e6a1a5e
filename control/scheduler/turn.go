package scheduler

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// turns keep the writes about one object in the order of the decisions: a refusal
// that is still on its way to the API server must not arrive after the binding, and
// undo what that says in the pod's status. Its methods may be called from any
// goroutine.
type turns struct {
	mu sync.Mutex
	// after has what waits for the write that is under way, by object. An attempt
	// adds one, and attempts come a second apart at least.
	after map[types.UID][]func()
}

// claim says whether nothing is under way for the object; if something is, do waits
// for its turn.
func (t *turns) claim(object types.UID, do func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting, busy := t.after[object]
	if busy {
		t.after[object] = append(waiting, do)
		return false
	}
	t.after[object] = nil
	return true
}

// next is what the object waits for now; nil when that was all.
func (t *turns) next(object types.UID) func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting := t.after[object]
	if len(waiting) == 0 {
		delete(t.after, object)
		return nil
	}
	t.after[object] = waiting[1:]
	return waiting[0]
}

// linger is how long a goroutine that has written waits for something else to write:
// its stack has grown to what a write needs, and each new one's would have to.
const linger = 2 * time.Second

// work runs a write beside the loop; the loop waits when too many are under way.
func (s *Scheduler) work(do func()) {
	select {
	case s.jobs <- do: // somebody lingers
		return
	default:
	}
	select {
	case s.jobs <- do:
	case s.slots <- struct{}{}:
		go s.hand(do)
	}
}

// hand does one write after another, until there is none for a while.
func (s *Scheduler) hand(do func()) {
	defer func() { <-s.slots }()
	rest := time.NewTimer(linger)
	defer rest.Stop()
	for {
		do()
		rest.Reset(linger)
		select {
		case do = <-s.jobs:
		case <-rest.C:
			return
		case <-s.end:
			return
		}
	}
}

// inTurn is work for a write about one object, after those before it.
func (s *Scheduler) inTurn(object types.UID, do func()) {
	if !s.turns.claim(object, do) {
		return
	}
	s.work(func() {
		for ; do != nil; do = s.turns.next(object) {
			do()
		}
	})
}

// atTurn does what inTurn does, and waits for it; not for the loop's goroutine.
func (s *Scheduler) atTurn(object types.UID, do func()) {
	done := make(chan struct{})
	s.inTurn(object, func() {
		defer close(done)
		do()
	})
	<-done
}
