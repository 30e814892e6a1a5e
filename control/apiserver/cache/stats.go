package cache

// Stats tell how a cache is doing.
type Stats struct {
	// Events is how many changes it has taken in since it was filled.
	Events uint64
	// Revision is how far it has come.
	Revision int64
	// Capacity is how many events it keeps at least.
	Capacity int
}

// Stats reads them at one moment.
func (c *Cache) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return Stats{Events: c.first + uint64(len(c.window)), Revision: c.current.revision, Capacity: c.cfg.Window}
}
