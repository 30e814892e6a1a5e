// Package pace lets the garbage collector take its time while a program is busy,
// and keeps the heap small while it is not.
//
// A collection costs what is alive, and there is one whenever as much again has been
// made. So what collecting costs is the same for small heaps and large ones, and goes
// by how much is made in a second: sampan spent a third of its processor time on it
// while it took writes. When much has been made for a while the heap may grow by more,
// so that collecting goes on costing a tenth of a core, up to a fixed room; when that is
// over it shrinks, and what is free goes back to the kernel. Whoever sets GOMEMLIMIT says how much memory there is to use: a busy heap
// may then grow to most of that. Nothing ticks: the collector itself says when it has
// run, and one timer waits for calm after business.
package pace

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// frugal is the collector's percentage in calm times, half the growth of Go's own
	// choice, for collections are rare then; a large heap keeps it in busy times.
	frugal = 50
	// usual is Go's own choice, with which business begins, and most bounds the
	// percentage while it lasts: a heap is collected once in four seconds at least.
	usual, most = 100, 400
	// least and widest bound the room: by how many bytes a heap may grow at most between
	// two collections of a busy program. In between it is a part of the machine's memory.
	// least is also what each such heap may grow by: a collection has costs of its own.
	least, widest = 64 << 20, 1 << 30
	part          = 16
	// eighths of a limit are what a busy program may fill: the rest is for what
	// lies free between objects, and for what is made while a collection goes on.
	eighths = 7
	// brisk is how many bytes a busy program makes in a second, unless fewer are
	// alive: collections would follow each other within a second then. To look through
	// that much costs about a tenth of a core, so a heap whose program makes twice as
	// much may grow by twice of what is alive. More room would save little, and what
	// outlives a burst, such as three hundred pods at once, would lie scattered in it.
	brisk = 64 << 20
	// lasting is how long that has to go on before the heap gets its room: what
	// stays of a short effort, such as a start, would lie scattered in it.
	lasting = 3 * time.Second
	// shortest is the least time that passes between two collections, for telling how
	// much is made in a second.
	shortest = time.Millisecond
	// calm is for how long there has to be no sign of business until the heap shrinks.
	calm = 5 * time.Second
)

// Keep keeps pace until stop is called, which leaves the collector as it is.
// The percentage belongs to the whole process: call Keep once.
func Keep() (stop func()) { return keep(times{lasting, calm}, space{room(machine()), limit()}) }

// limit is GOMEMLIMIT in bytes, 0 for none.
func limit() uint64 {
	if set := debug.SetMemoryLimit(-1); set != math.MaxInt64 {
		return uint64(set) //nolint:gosec // never negative
	}
	return 0
}

// keeper is told of each collection.
type keeper struct {
	mu      sync.Mutex
	pulse   pulse
	percent int
	rest    *time.Timer // runs while the percentage is not frugal
	stopped bool
}

// times are lasting and calm, shorter in a test.
type times struct{ lasting, calm time.Duration }

func keep(t times, space space) (stop func()) {
	now := time.Now()
	k := &keeper{pulse: pulse{times: t, space: space, last: now, began: now, made: heap().made, spent: spent()}, percent: usual}
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
	if percent, busy := k.pulse.felt(time.Now(), heap()); busy {
		k.set(percent)
		k.rest.Reset(k.pulse.times.calm)
	}
}

// settle is called when no collection has told of business for a while. In a heap
// with much room that may be because there was none.
func (k *keeper) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	if k.pulse.busy(time.Now(), heap()) {
		k.rest.Reset(k.pulse.times.calm)
		return
	}
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

// pulse is how much the program makes, as its collections show.
type pulse struct {
	times times
	space space
	last  time.Time // of the latest collection
	began time.Time // of the present business
	made  uint64    // in all, at the latest collection
	spent time.Duration
}

// felt takes in a collection, and says which percentage suits a busy program; for
// one that is not, nothing.
func (p *pulse) felt(now time.Time, h size) (percent int, busy bool) {
	busy = p.busy(now, h)
	// Where others have the cores a second is one of its own processor time: collecting
	// is to cost a part of what the program does, not of what the machine does.
	took := max(shortest, min(now.Sub(p.last), h.spent-p.spent))
	rate := float64(h.made-p.made) / took.Seconds()
	p.last, p.made, p.spent = now, h.made, h.spent
	if !busy {
		p.began = now
		return 0, false
	}
	percent = percentFor(h.live, p.space.of(h, rate))
	if now.Sub(p.began) < p.times.lasting {
		percent = min(percent, usual)
	}
	return percent, true
}

// busy says whether much has been made since the latest collection.
func (p *pulse) busy(now time.Time, h size) bool {
	return float64(h.made-p.made) >= now.Sub(p.last).Seconds()*float64(min(h.live, brisk))
}

// percentFor is the percentage that gives a busy heap its room.
func percentFor(live, room uint64) int {
	if live == 0 {
		return most
	}
	return int(min(most, max(frugal, room*100/live))) //nolint:gosec // at most 400
}

// space is what there is for a busy heap: the room that it may always grow by, and
// the limit of all of the process's memory, 0 for none.
type space struct{ room, limit uint64 }

// of is by how much the heap of a program may grow that makes so many bytes in a second.
func (s space) of(h size, rate float64) uint64 {
	fair := float64(h.live) * rate / brisk // collections then look through brisk a second
	room := min(s.room, max(least, uint64(min(fair, widest))))
	allowed, used := s.limit/8*eighths, h.live+h.other
	if allowed < used {
		return room
	}
	return max(room, allowed-used)
}

// room is what a heap may grow by where there is so much memory.
func room(memory uint64) uint64 { return min(max(memory/part, least), widest) }

// size is how many bytes the latest collection left, how many are used for other
// things than objects, and how many objects' bytes have been made, and how much processor
// time has been spent, since the program began.
type size struct {
	live, other, made uint64
	spent             time.Duration
}

func heap() size {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	bytes := func(i int) uint64 {
		if sample[i].Value.Kind() != metrics.KindUint64 {
			return 0 // a later Go doesn't know it
		}
		return sample[i].Value.Uint64()
	}
	h := size{live: bytes(0), made: bytes(1), other: bytes(2), spent: spent()}
	for i := 3; i < len(sample); i++ {
		h.other -= min(h.other, bytes(i))
	}
	return h
}

// spent is the processor time of this process, in user and kernel mode.
func spent() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0 // cannot be: the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
