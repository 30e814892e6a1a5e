package pace

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	for _, c := range []struct {
		live, room uint64
		want       int
	}{
		{0, least, most},
		{1 << 20, least, most},   // a small heap grows fivefold
		{16 << 20, least, most},  // 16 MiB and 64 of room
		{32 << 20, least, 200},   // the same room
		{64 << 20, least, usual}, // as Go has it
		{4 << 30, least, frugal}, // a large heap has room of its own
		{256 << 20, widest, most},
		{4 << 30, widest, frugal},
	} {
		if got := percentFor(c.live, c.room); got != c.want {
			t.Errorf("percentFor(%d, %d) = %d, want %d", c.live, c.room, got, c.want)
		}
	}
}

// TestPulse lets a program make things at a steady rate, and looks at the percentage
// that it has come to.
func TestPulse(t *testing.T) {
	const forever = time.Minute
	for _, c := range []struct {
		what       string
		live, rate uint64
		limit      uint64
		after      time.Duration
		want       int
		cores      float64 // that it has; 0 for one
	}{
		{"at rest", 64 << 20, 1 << 20, 0, forever, frugal, 0},
		{"probes and heartbeats", 128 << 20, 32 << 20, 0, forever, frugal, 0},
		{"a small heap", 8 << 20, 32 << 20, 0, forever, most, 0},
		{"writes", 128 << 20, 256 << 20, 0, forever, most, 0},
		{"the same, not for long", 128 << 20, 256 << 20, 0, lasting - time.Second, usual, 0},
		{"writes to a heap of some size", 364 << 20, 256 << 20, 0, forever, 281, 0},
		{"half as many", 364 << 20, 128 << 20, 0, forever, 200, 0},
		{"pods that are started", 64 << 20, 160 << 20, 0, forever, 250, 0},
		{"just busy", 256 << 20, 65 << 20, 0, forever, 101, 0},
		{"writes to a large heap", 4 << 30, 256 << 20, 0, forever, frugal, 0},
		{"writes below a limit", 1 << 30, 256 << 20, 4 << 30, forever, 200, 0},
		{"writes near a limit", 3 << 30, 256 << 20, 4 << 30, forever, frugal, 0},
		{"at rest below a limit", 1 << 30, 1 << 20, 4 << 30, forever, frugal, 0},
		{"pods, where others have the cores", 64 << 20, 64 << 20, 0, forever, 200, 0.5},
	} {
		now, collected, h := time.Unix(0, 0), uint64(0), size{live: c.live, other: 512 << 20}
		p := pulse{times: times{lasting, calm}, space: space{widest, c.limit}, last: now, began: now}
		percent, settled, rest := usual, 0, now.Add(calm)
		for end := now.Add(c.after); now.Before(end); now = now.Add(time.Second / 128) {
			h.made += c.rate / 128
			h.spent += time.Duration(float64(time.Second/128) * cmp.Or(c.cores, 1))
			if h.made-collected >= c.live*uint64(percent)/100 {
				collected = h.made
				if next, busy := p.felt(now, h); busy {
					percent, rest = next, now.Add(calm)
				}
			}
			if now.Before(rest) {
				continue
			}
			rest = now.Add(calm)
			if !p.busy(now, h) {
				percent, settled = frugal, settled+1
			}
		}
		if percent != c.want || settled > 0 && c.want != frugal {
			t.Errorf("%s: %d %%, want %d; settled %d times", c.what, percent, c.want, settled)
		}
	}
}

// A limit is room that somebody has given, less what is used already.
func TestSpace(t *testing.T) {
	for _, c := range []struct {
		limit, live, other uint64
		rate               float64
		want               uint64
	}{
		{0, 1 << 30, 0, brisk, 512 << 20},
		{0, 128 << 20, 0, brisk, 128 << 20},
		{0, 128 << 20, 0, 3 * brisk, 384 << 20},
		{0, 128 << 20, 0, 1e12, 512 << 20},
		{0, 1 << 20, 0, brisk, least},
		{8 << 30, 2 << 30, 1 << 30, brisk, 4 << 30},
		{8 << 30, 7 << 30, 0, brisk, 512 << 20},
		{8 << 30, 9 << 30, 0, brisk, 512 << 20},
	} {
		if got := (space{512 << 20, c.limit}).of(size{live: c.live, other: c.other}, c.rate); got != c.want {
			t.Errorf("of %+v: %d, want %d", c, got, c.want)
		}
	}
	if h := heap(); h.other == 0 || h.made == 0 {
		t.Errorf("this program: %+v", h)
	}
}

func TestRoom(t *testing.T) {
	for memory, want := range map[uint64]uint64{0: least, 512 << 20: least, 4 << 30: 256 << 20, 1 << 40: widest} {
		if got := room(memory); got != want {
			t.Errorf("room(%d) = %d, want %d", memory, got, want)
		}
	}
	if machine() == 0 {
		t.Error("this machine has no memory")
	}
}

// What a control group allows counts, its parents' limits too, in both versions.
func TestAllowed(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/memory.max", "3000")
	write("a/b/memory.max", "max")
	write("memory/c/memory.limit_in_bytes", "2000")
	for groups, want := range map[string]uint64{
		"0::/a/b\n": 3000, "0::/other\n": 5000, "4:cpu:/c\n7:memory:/c\n0::/a\n": 2000, "": 5000, "nonsense": 5000,
	} {
		if got := allowed(5000, root, groups); got != want {
			t.Errorf("in %q: %d, want %d", groups, got, want)
		}
	}
}

// TestBusyThenCalm makes garbage until the heap gets its room, and then stops.
func TestBusyThenCalm(t *testing.T) {
	before := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(before)
	stop := keep(times{lasting: 50 * time.Millisecond, calm: 50 * time.Millisecond}, space{room: least})
	defer stop()
	if got := percent(); got != usual {
		t.Fatalf("the collector starts at %d %%, want %d", got, usual)
	}
	limit := time.Now().Add(2 * time.Minute)
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
