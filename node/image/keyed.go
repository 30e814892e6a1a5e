package image

import (
	"context"
	"sync"
)

// keyed is a mutex per key, of which waiting may be given up; keys that nobody
// holds cost nothing.
type keyed struct {
	mu   sync.Mutex
	held map[string]*turn
}

// turn is one key's: whoever sends into it holds the key.
type turn struct {
	taken chan struct{}
	users int
}

// lock waits for the key and returns its unlock, to be called once.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*turn{}
	}
	one := k.held[key]
	if one == nil {
		one = &turn{taken: make(chan struct{}, 1)}
		k.held[key] = one
	}
	one.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case one.taken <- struct{}{}:
		return func() { <-one.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
