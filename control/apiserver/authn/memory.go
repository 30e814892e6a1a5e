package authn

import "sync"

// memory remembers what was found out, at most twice max of it: when the young
// generation is full it becomes the old one, and the old one is forgotten. What is
// asked for stays young. Safe for concurrent use.
type memory[K comparable, V any] struct {
	max int

	mu         sync.Mutex
	young, old map[K]V
}

func newMemory[K comparable, V any](max int) *memory[K, V] {
	return &memory[K, V]{max: max, young: map[K]V{}}
}

func (m *memory[K, V]) recall(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.young[key]; ok {
		return v, true
	}
	v, ok := m.old[key]
	if ok {
		m.add(key, v)
	}
	return v, ok
}

func (m *memory[K, V]) remember(key K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(key, v)
}

func (m *memory[K, V]) add(key K, v V) {
	if len(m.young) >= m.max {
		m.old, m.young = m.young, make(map[K]V, m.max)
	}
	m.young[key] = v
}
