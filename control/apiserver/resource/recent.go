package resource

import (
	"hash/maphash"
	"sync/atomic"
)

// recentSlots is how many groups of keys have their latest write remembered.
const recentSlots = 512

// recent remembers, for groups of keys, the latest revision that this server
// itself wrote, so that a write right after another does not begin from a cached
// copy that is known to be old. Keys that share a slot cost each other a read.
type recent struct {
	seed  maphash.Seed
	slots [recentSlots]atomic.Int64
}

func newRecent() *recent { return &recent{seed: maphash.MakeSeed()} }

func (r *recent) slot(key string) *atomic.Int64 {
	return &r.slots[maphash.String(r.seed, key)%recentSlots]
}

// wrote notes a write to key.
func (r *recent) wrote(key string, revision int64) {
	slot := r.slot(key)
	for {
		have := slot.Load()
		if have >= revision || slot.CompareAndSwap(have, revision) {
			return
		}
	}
}

// after says whether key may have been written later than revision.
func (r *recent) after(key string, revision int64) bool {
	return r.slot(key).Load() > revision
}
