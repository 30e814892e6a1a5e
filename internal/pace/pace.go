// Package pace lets the garbage collector take its time while a program is busy,
// and keeps the heap small while it is not.
//
// A collection costs what is alive, so a program with little that is alive and
// much to do collects all the time: sampan spent a seventh of its processor time
// on it while it took writes. When collections have followed each other closely
// for a while the heap may grow by a fixed room instead; when they no longer do,
// it shrinks, and what is free goes back to the kernel. Nothing ticks: the collector itself says
// when it has run, and one timer waits for calm after business.
package pace

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// frugal is the collector's percentage in calm times: half the growth of
	// Go's own choice, for collections are rare then.
	frugal = 50
	// usual and most bound the percentage in busy times. Usual is Go's own
	// choice, which a large heap keeps.
	usual, most = 100, 400
	// least and widest bound the room: by how many bytes a heap that is not large
	// may grow between two collections of a busy program. In between it is a part
	// of the machine's memory.
	least, widest = 64 << 20, 512 << 20
	part          = 64
	// busy is how soon collections have to follow each other.
	busy = time.Second
	// lasting is how long that has to go on before the heap gets its room: what
	// stays of a short effort, such as a start, would lie scattered in it.
	lasting = 3 * time.Second
	// calm is how long no collection has to happen until the heap shrinks.
	calm = 5 * time.Second
)

// Keep keeps pace until stop is called, which leaves the collector as it is.
// The percentage belongs to the whole process: call Keep once.
func Keep() (stop func()) { return keep(times{lasting, calm}, room(machine())) }

// keeper is told of each collection.
type keeper struct {
	mu      sync.Mutex
	last    time.Time // of the latest collection
	began   time.Time // of the present series of collections
	percent int
	times   times
	room    uint64
	rest    *time.Timer // runs while the percentage is not frugal
	stopped bool
}

// times are lasting and calm, shorter in a test.
type times struct{ lasting, calm time.Duration }

func keep(t times, room uint64) (stop func()) {
	now := time.Now()
	k := &keeper{last: now, began: now, percent: usual, times: t, room: room}
	debug.SetGCPercent(usual)
	k.rest = time.AfterFunc(t.calm, k.settle)
	k.listen()
	return k.stop
}

// sign is what the collector finds dead. It has a pointer, since small objects
// without one share their memory and their end.
type sign struct{ _ *byte }

// listen has collected called after the next collection.
func (k *keeper) listen() { runtime.AddCleanup(&sign{}, (*keeper).collected, k) }

func (k *keeper) collected() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	k.listen()
	now := time.Now()
	alone := now.Sub(k.last) >= busy
	k.last = now
	switch {
	case alone:
		k.began = now
		return
	case now.Sub(k.began) < k.times.lasting:
		k.set(usual)
	default:
		k.set(percentFor(live(), k.room))
	}
	k.rest.Reset(k.times.calm)
}

// settle is called when there has been no collection for a while.
func (k *keeper) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	k.last = time.Time{} // the collection that follows is our own
	k.set(frugal)
	debug.FreeOSMemory()
}

func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	k.rest.Stop()
}

// set changes the percentage, which stops the world for a moment. The lock is held.
func (k *keeper) set(percent int) {
	if percent != k.percent {
		k.percent = percent
		debug.SetGCPercent(percent)
	}
}

// percentFor is the percentage that gives a busy heap its room.
func percentFor(live, room uint64) int {
	if live == 0 {
		return most
	}
	return int(min(most, max(usual, room*100/live))) //nolint:gosec // at most 400
}

// room is what a heap may grow by where there is so much memory.
func room(memory uint64) uint64 { return min(max(memory/part, least), widest) }

// live is how many bytes the latest collection left.
func live() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
