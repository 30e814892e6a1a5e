package server

import (
	"testing"
	"time"
)

// How fast a counter grows is told over no less than five seconds, and not told when
// nobody knows: at first, and when it begins anew.
func TestRates(t *testing.T) {
	at := func(seconds int, nanos uint64) sample {
		return sample{at: time.Unix(int64(1000+seconds), 0), nanos: nanos}
	}
	var s sample
	for _, c := range []struct {
		now  sample
		want int64 // -1 for nobody knows
	}{
		{at(0, 100), -1},
		{at(1, 1100), 1000}, // as good as can be
		{at(2, 9100), 1000}, // too soon after that
		{at(11, 11100), 1000},
		{at(12, 99999), 1000},
		{at(21, 31100), 2000},
		{at(31, 5), -1}, // a container was started again
		{at(41, 10005), 1000},
	} {
		s = s.next(c.now)
		got := int64(-1)
		if s.rate != nil {
			got = int64(*s.rate)
		}
		if got != c.want {
			t.Errorf("at %v: %d, want %d", c.now.at.Unix(), got, c.want)
		}
	}
}
