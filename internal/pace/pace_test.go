package pace

import (
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, most},
		{1 << 20, most},   // a small heap grows fivefold
		{16 << 20, most},  // 16 MiB and 64 of room
		{32 << 20, 200},   // the same room
		{64 << 20, usual}, // from here on as Go has it
		{4 << 30, usual},
	} {
		if got := percentFor(c.live); got != c.want {
			t.Errorf("percentFor(%d) = %d, want %d", c.live, got, c.want)
		}
	}
}

// TestBusyThenCalm makes garbage until the heap gets its room, and then stops.
func TestBusyThenCalm(t *testing.T) {
	before := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(before)
	stop := keep(times{lasting: 50 * time.Millisecond, calm: 50 * time.Millisecond})
	defer stop()
	if got := percent(); got != usual {
		t.Fatalf("the collector starts at %d %%, want %d", got, usual)
	}
	limit := time.Now().Add(20 * time.Second)
	for percent() <= usual {
		waste(t, limit)
	}
	for percent() != frugal {
		if time.Now().After(limit) {
			t.Fatalf("the collector stays at %d %% though nothing happens", percent())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// sink keeps garbage on the heap.
var sink []byte

func waste(t *testing.T, limit time.Time) {
	if time.Now().After(limit) {
		t.Fatal("the collector keeps its pace though the program is busy")
	}
	for range 100 {
		sink = make([]byte, 1<<16)
	}
}

func percent() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
