package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/node/image"
)

// On a terminal, what is under way is drawn below what has come, and goes.
func TestLayersOnTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &layerProgress{out: &out, redraw: true, under: map[string]image.Progress{}}
	steps := []struct {
		at   image.Progress
		want string
	}{
		{image.Progress{Layer: "sha256:aaaa", Total: 4000}, "1 layers to come, 0 B of 4.0 kB\n"},
		{image.Progress{Layer: "sha256:bbbb", Total: 1000, Present: true}, "\x1b[1A\x1b[Jbbbb  is here already\n1 layers to come, 0 B of 4.0 kB\n"},
		{image.Progress{Layer: "sha256:cccc", Total: 8000, Done: 8000}, "\x1b[1A\x1b[Jcccc  8.0 kB\n1 layers to come, 0 B of 4.0 kB\n"},
		{image.Progress{Layer: "sha256:aaaa", Total: 4000, Done: 4000}, "\x1b[1A\x1b[Jaaaa  4.0 kB\n"},
	}
	for _, step := range steps {
		out.Reset()
		p.tell(step.at)
		if got := out.String(); got != step.want {
			t.Errorf("%+v: drawn %q, want %q", step.at, got, step.want)
		}
	}
	p.under["x"], p.order = image.Progress{Layer: "x", Done: 1, Total: 2}, []string{"x"}
	out.Reset()
	p.draw()
	if got := out.String(); !strings.Contains(got, "x  "+strings.Repeat("━", 12)+strings.Repeat("·", 12)+"  1 B of 2 B\n") || p.drawn != 2 {
		t.Errorf("drawn %q", got)
	}
}

// In a pipe, there is a line for each layer that has come, and nothing else.
func TestLayersInPipe(t *testing.T) {
	var out bytes.Buffer
	tell := layersTo(&out)
	tell(image.Progress{Layer: "sha256:aaaa", Total: 10})
	tell(image.Progress{Layer: "sha256:aaaa", Total: 10, Done: 5})
	tell(image.Progress{Layer: "sha256:aaaa", Total: 10, Done: 10})
	if got, want := out.String(), "aaaa  10 B\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}
