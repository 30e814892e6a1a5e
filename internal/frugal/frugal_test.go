package frugal

import (
	"testing"
	"time"
)

// recorder keeps what a test would be failed for.
type recorder struct {
	testing.TB
	failed int
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed++ }

var kept []byte

// What costs too much is told, and only that.
func TestRun(t *testing.T) {
	for about, c := range map[string]struct {
		work func()
		want int
	}{
		"nothing":     {func() {}, 0},
		"much memory": {func() { kept = make([]byte, 80<<20) }, 1},
		"much time": {func() {
			begin := cpu(t)
			for n := 0; cpu(t)-begin < leastTime+100*time.Millisecond; n++ {
				kept = kept[:0]
			}
		}, 1},
	} {
		r := &recorder{TB: t}
		Run(r, 10, c.work)
		if r.failed != c.want {
			t.Errorf("%s: failed %d times, want %d", about, r.failed, c.want)
		}
	}
}
