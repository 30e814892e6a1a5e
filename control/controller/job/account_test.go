package job

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A job never ends before it began, whatever the clock shows.
func TestCompletedWithAClockSetBack(t *testing.T) {
	now := metav1.Now()
	for _, ahead := range []time.Duration{-time.Hour, 0, 400 * 24 * time.Hour} {
		start := metav1.NewTime(now.Add(ahead))
		want := now
		if ahead > 0 {
			want = start
		}
		if end := completed(&start, now); !end.Equal(&want) {
			t.Errorf("begun %v from now: ended at %v, want %v", ahead, end, want)
		}
	}
	if end := completed(nil, now); !end.Equal(&now) {
		t.Errorf("begun at no time: ended at %v", end)
	}
}
