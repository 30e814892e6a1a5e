package scheduler

import "sync"

// mailbox brings what other goroutines have to say to the one that owns the
// state. Posting never blocks: its length is bounded by what the informers
// deliver between two decisions, and by the bindings under way.
type mailbox struct {
	mu    sync.Mutex
	queue []func()
	spare []func() // the owner's: the array of what was delivered before
	// news holds one token while the queue may not be empty.
	news chan struct{}
}

// maxSpare is how long an array of letters may be to be used again.
const maxSpare = 4096

func (m *mailbox) post(fn func()) {
	m.mu.Lock()
	m.queue = append(m.queue, fn)
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// deliver runs what has been posted, in order. Only the owner calls it.
func (m *mailbox) deliver() {
	m.mu.Lock()
	queue := m.queue
	m.queue = m.spare
	m.mu.Unlock()
	for _, fn := range queue {
		fn()
	}
	clear(queue)
	if m.spare = queue[:0]; cap(queue) > maxSpare {
		m.spare = nil
	}
}
