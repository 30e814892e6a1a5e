package seeded

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "live this seed alone, and show its trace")
	allSeeds = flag.Int("seeds", 60, "how many seeds to live")
	first    = flag.Bool("first", false, "end with the first seed that fails")
)

// shown is how much of a failing seed's trace is shown: its end.
const shown = 60

// TestSeeds lives many lives. A seed that fails is lived again by -seed.
func TestSeeds(t *testing.T) {
	k := newKeys(t)
	if *oneSeed != 0 {
		trace, wrong := live(t, *oneSeed, k)
		t.Log("\n" + strings.Join(trace, "\n"))
		report(t, *oneSeed, nil, wrong)
		return
	}
	for seed := uint64(1); seed <= uint64(*allSeeds); seed++ {
		trace, wrong := live(t, seed, k)
		report(t, seed, trace, wrong)
		if *first && t.Failed() {
			return
		}
	}
}

func report(t *testing.T, seed uint64, trace, wrong []string) {
	t.Helper()
	if len(wrong) == 0 {
		return
	}
	t.Errorf("seed %d (%s):\n  %s\n%s", seed, profiles[int(seed)%len(profiles)].name, strings.Join(wrong, "\n  "),
		strings.Join(trace[max(0, len(trace)-shown):], "\n"))
}

// TestReplay lives seeds twice. A life happens again at the same moments and in the
// same order, but for what Go's scheduler decides within one component between
// two of its questions: so not every life need be the same to the last line.
func TestReplay(t *testing.T) {
	k := newKeys(t)
	same := 0
	for seed := uint64(1); seed <= uint64(len(profiles)); seed++ {
		once, _ := live(t, seed, k)
		again, _ := live(t, seed, k)
		if slices.Equal(once, again) {
			same++
			continue
		}
		at := 0
		for at < min(len(once), len(again)) && once[at] == again[at] {
			at++
		}
		t.Logf("seed %d differs from line %d on, of %d and %d:\n%s\n--- again:\n%s", seed, at, len(once), len(again),
			strings.Join(around(once, at), "\n"), strings.Join(around(again, at), "\n"))
	}
	if same < len(profiles)/2 {
		t.Errorf("of %d seeds, %d happened again", len(profiles), same)
	}
}

// around are the lines of a trace around the one at which it differs.
func around(trace []string, at int) []string {
	return trace[max(0, at-3):min(at+3, len(trace))]
}
