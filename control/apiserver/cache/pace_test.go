package cache

import (
	"testing"
	"testing/synctest"
	"time"
)

// A paced watcher gets a few batches at once, and then one each paceEvery; after a
// rest, a few at once again.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{on: true, left: paceBurst}
		run := func(want int, span time.Duration) {
			t.Helper()
			done := 0
			for end := time.Now().Add(span); time.Now().Before(end); done++ {
				if wait := p.wait(); wait > 0 {
					time.Sleep(wait)
				}
				p.took(time.Now())
			}
			if done < want-1 || done > want+1 {
				t.Errorf("%d batches within %v, want %d", done, span, want)
			}
		}
		run(paceBurst+200, 200*paceEvery)
		time.Sleep(time.Minute)
		run(paceBurst+10, 10*paceEvery)
		time.Sleep(time.Minute)
		for late, want := range map[time.Duration]time.Duration{paceEvery: 0, 8 * time.Millisecond: 8 * time.Millisecond, time.Second: paceLate} {
			p.took(time.Now().Add(-late))
			if got := max(p.wait(), 0); got != want {
				t.Errorf("after a batch that is %v late: rest for %v, want %v", late, got, want)
			}
			time.Sleep(time.Second)
		}
		off := pace{}
		for range 10 * paceBurst {
			if off.took(time.Time{}); off.wait() > 0 {
				t.Fatal("a watcher that is not paced waits")
			}
		}
	})
}
