package informer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sampan-dev/sampan/client"
)

// key is an object's place; a struct, so that looking up needs no new string.
type key struct{ namespace, name string }

func (k key) compare(o key) int {
	return cmp.Or(strings.Compare(k.namespace, o.namespace), strings.Compare(k.name, o.name))
}

func keyOf(obj client.Object) key { return key{obj.GetNamespace(), obj.GetName()} }

// mirror is the objects and their indexes. One goroutine writes, any may read.
type mirror[T client.Object] struct {
	mu      sync.RWMutex
	objects map[key]T
	indexes map[string]*index[T]
}

type index[T client.Object] struct {
	values  func(T) []string
	objects map[string]map[key]T
}

func newMirror[T client.Object]() mirror[T] {
	return mirror[T]{objects: map[key]T{}, indexes: map[string]*index[T]{}}
}

func (m *mirror[T]) addIndex(name string, values func(T) []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.indexes[name] = &index[T]{values, map[string]map[key]T{}}
}

func (m *mirror[T]) get(k key) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	obj, ok := m.objects[k]
	return obj, ok
}

func (m *mirror[T]) size() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.objects)
}

func (m *mirror[T]) list() []T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return inOrder(m.objects)
}

func (m *mirror[T]) byIndex(name, value string) []T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	ix, ok := m.indexes[name]
	if !ok {
		panic(fmt.Sprintf("informer: no index %q", name))
	}
	found := ix.objects[value]
	return inOrder(found)
}

// inOrder gives objects by namespace and name: whoever acts on several of them
// does so in the same order each time.
func inOrder[T client.Object](objects map[key]T) []T {
	keys := slices.SortedFunc(maps.Keys(objects), key.compare)
	out := make([]T, len(keys))
	for i, k := range keys {
		out[i] = objects[k]
	}
	return out
}

func (m *mirror[T]) put(obj T) Event[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set(keyOf(obj), obj)
}

func (m *mirror[T]) remove(obj T) (Event[T], bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := keyOf(obj)
	if _, ok := m.objects[k]; !ok {
		return Event[T]{}, false
	}
	m.unset(k)
	return Event[T]{Old: obj}, true // the event's object is the newer one
}

// replace makes the mirror hold exactly objects and returns what that changed:
// deletions first, so that what took a deleted object's place comes after it.
func (m *mirror[T]) replace(objects []T) []Event[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := make(map[key]bool, len(objects))
	for _, obj := range objects {
		now[keyOf(obj)] = true
	}
	var events []Event[T]
	for _, old := range inOrder(m.objects) {
		if k := keyOf(old); !now[k] {
			m.unset(k)
			events = append(events, Event[T]{Old: old})
		}
	}
	for _, obj := range objects {
		k := keyOf(obj)
		old, known := m.objects[k]
		if known && old.GetResourceVersion() == obj.GetResourceVersion() {
			continue
		}
		if known && old.GetUID() != obj.GetUID() {
			m.unset(k)
			events = append(events, Event[T]{Old: old})
		}
		events = append(events, m.set(k, obj))
	}
	return events
}

// set stores obj; the caller holds the lock.
func (m *mirror[T]) set(k key, obj T) Event[T] {
	old, known := m.objects[k]
	for _, ix := range m.indexes {
		if known {
			ix.drop(k, old)
		}
		ix.add(k, obj)
	}
	m.objects[k] = obj
	return Event[T]{Old: old, New: obj}
}

// unset forgets the object at k; the caller holds the lock.
func (m *mirror[T]) unset(k key) {
	for _, ix := range m.indexes {
		ix.drop(k, m.objects[k])
	}
	delete(m.objects, k)
}

func (ix *index[T]) add(k key, obj T) {
	for _, v := range ix.values(obj) {
		if ix.objects[v] == nil {
			ix.objects[v] = map[key]T{}
		}
		ix.objects[v][k] = obj
	}
}

func (ix *index[T]) drop(k key, obj T) {
	for _, v := range ix.values(obj) {
		delete(ix.objects[v], k)
		if len(ix.objects[v]) == 0 {
			delete(ix.objects, v)
		}
	}
}
