package nodettl

import "testing"

// A cluster grows through the steps and shrinks with some delay.
func TestNext(t *testing.T) {
	at := 0
	for _, c := range []struct{ nodes, seconds int }{
		{0, 0}, {100, 0}, {101, 15}, {95, 15}, {89, 0}, {501, 30}, {1001, 60}, {950, 60}, {899, 30}, {5000, 300}, {1, 0},
	} {
		if at = next(at, c.nodes); steps[at].seconds != c.seconds {
			t.Errorf("%d nodes: %d seconds, want %d", c.nodes, steps[at].seconds, c.seconds)
		}
	}
}
