package cache

import (
	"bytes"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
)

// maxExpected is how many writes may be expected at the same time; those that were
// announced before the latest so many, and never came, are forgotten.
const maxExpected = 512

// expected are writes that are under way, and what they write: what comes back from
// the store need not be decoded by who has just encoded it.
type expected struct {
	mu         sync.Mutex
	young, old map[string]*Expected // by the store's key
}

// Expected is a write that a cache was told of before it was made.
type Expected struct {
	key   string
	value []byte
	obj   runtime.Object
}

// Expect announces that value is about to be written under the store's key, and that
// decoding it makes obj. From then on obj belongs to the cache; nobody writes to what
// it points to. It is used when, and only when, the store tells of exactly these bytes
// under this key, whoever wrote them; any other write is decoded as always.
//
// What was announced for the same key before is forgotten.
func (c *Cache) Expect(key string, value []byte, obj runtime.Object) *Expected {
	made := &Expected{key: key, value: value, obj: obj}
	x := &c.expected
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.young) >= maxExpected || x.young == nil {
		x.old, x.young = x.young, make(map[string]*Expected)
	}
	x.young[key] = made
	return made
}

// Watched says whether somebody watches more than one name of a namespace, or of all:
// whether what is written there will be looked at.
func (c *Cache) Watched(namespace string) bool {
	a := &c.audience
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.of[""] > 0 || a.of[namespace] > 0
}

// audience counts the watchers that look at more than one name.
type audience struct {
	mu sync.RWMutex
	of map[string]int // by the namespace that they look at; "" is all
}

// count adds those of a namespace, or takes them away.
func (a *audience) count(namespace string, more int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[string]int{}
	}
	if a.of[namespace] += more; a.of[namespace] == 0 {
		delete(a.of, namespace)
	}
}

// Forget says that an announced write has failed. It may be nil.
func (c *Cache) Forget(gone *Expected) {
	if gone == nil {
		return
	}
	x := &c.expected
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, all := range []map[string]*Expected{x.young, x.old} {
		if all[gone.key] == gone {
			delete(all, gone.key)
		}
	}
}

// take gives the object that was announced for a key and a value, once; else nil.
func (x *expected) take(key string, value []byte) runtime.Object {
	x.mu.Lock()
	found, from := x.young[key], x.young
	if found == nil {
		found, from = x.old[key], x.old
	}
	if found != nil && bytes.Equal(found.value, value) {
		delete(from, key)
		x.mu.Unlock()
		return found.obj
	}
	x.mu.Unlock()
	return nil
}
