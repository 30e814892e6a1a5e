package agent

import (
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// TestEngineWithoutEvents: what ends is seen a second later at most, and nobody asks
// for events again and again.
func TestEngineWithoutEvents(t *testing.T) {
	tell(t, "no_events", func(s *story) {
		s.stopAgent()
		s.engine.Mute = true
		s.startAgent()
		s.engine.Images["work"] = agenttest.Exit(2500*time.Millisecond, 1)
		s.create(pod("bad", container("app", "work")))
		s.pass(20 * time.Second)
		s.delete("bad")
		s.pass(time.Minute)
		s.clean()
		s.engine.Do(func() { s.say("asked for events %d times", s.engine.Asked) })
	})
}

func TestMoved(t *testing.T) {
	last := map[string]seen{"a": {"p1", 1}, "b": {"p1", 1}, "c": {"p2", 1}, "d": {"p3", 0}, "e": {"p5", 2}}
	now := map[string]seen{"a": {"p1", 1}, "b": {"p1", 2}, "d": {"p3", 0}, "e": {"p5", 2}, "f": {"p4", 0}}
	got := slices.Sorted(maps.Keys(moved(last, now)))
	if want := []types.UID{"p1", "p2", "p4"}; !slices.Equal(got, want) {
		t.Errorf("moved %v, want %v", got, want)
	}
}
