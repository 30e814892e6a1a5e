// Package keylock is a mutex a key: who holds one key does not keep others
// waiting, and a key nobody holds costs no memory.
package keylock

import "sync"

// Locks is a set of mutexes by key. The zero value is ready to use.
type Locks struct {
	mu   sync.Mutex
	held map[string]*entry
}

type entry struct {
	mu   sync.Mutex
	want int // holders and waiters
}

// Lock waits until nobody else holds key. The caller calls the result once, to
// let go.
func (l *Locks) Lock(key string) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*entry{}
	}
	e := l.held[key]
	if e == nil {
		e = &entry{}
		l.held[key] = e
	}
	e.want++
	l.mu.Unlock()
	e.mu.Lock()
	return func() {
		e.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.want--; e.want == 0 {
			delete(l.held, key)
		}
	}
}
