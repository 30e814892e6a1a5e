package reconcile

import (
	"container/heap"
	"time"
)

// fifo is a queue of keys.
type fifo struct {
	keys []Key
	head int
}

func (q *fifo) len() int     { return len(q.keys) - q.head }
func (q *fifo) push(key Key) { q.keys = append(q.keys, key) }

func (q *fifo) pop() (Key, bool) {
	if q.len() == 0 {
		return Key{}, false
	}
	key := q.keys[q.head]
	q.head++
	if q.head*2 >= len(q.keys) { // half is gone: move the rest down, so that it does not grow for ever
		q.keys = append(q.keys[:0], q.keys[q.head:]...)
		q.head = 0
	}
	return key, true
}

// schedule holds the keys that are to be looked at later. It remembers one
// moment a key, the earliest: an earlier look that finds nothing to do asks
// again for the later one.
type schedule struct {
	heap dueHeap
	at   map[Key]*due
}

type due struct {
	key Key
	at  time.Time
	pos int
}

func (s *schedule) add(key Key, at time.Time) {
	if s.at == nil {
		s.at = map[Key]*due{}
	}
	d, ok := s.at[key]
	if !ok {
		d = &due{key: key, at: at}
		s.at[key] = d
		heap.Push(&s.heap, d)
		return
	}
	if at.Before(d.at) {
		d.at = at
		heap.Fix(&s.heap, d.pos)
	}
}

func (s *schedule) peek() (Key, time.Time, bool) {
	if len(s.heap) == 0 {
		return Key{}, time.Time{}, false
	}
	return s.heap[0].key, s.heap[0].at, true
}

func (s *schedule) pop() {
	d := heap.Pop(&s.heap).(*due)
	delete(s.at, d.key)
}

// dueHeap implements heap.Interface: the earliest first.
type dueHeap []*due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push is heap.Interface's.
func (h *dueHeap) Push(x any) {
	d := x.(*due)
	d.pos = len(*h)
	*h = append(*h, d)
}

// Pop is heap.Interface's.
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}
