package cli

import (
	"bytes"
	"fmt"
	"io"

	"github.com/sampan-dev/sampan/node/build"
)

// buildProgress prints a line for each finished instruction, and what RUNs print;
// on a terminal also what is under way.
type buildProgress struct {
	out    io.Writer
	redraw bool
	drawn  bool
}

// clear takes away the line of what is under way.
func (b *buildProgress) clear() {
	if b.drawn {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.drawn = false
	}
}

func (b *buildProgress) event(e build.Event) {
	name := ""
	if e.Name != "" {
		name = e.Name + " "
	}
	b.clear()
	switch {
	case len(e.Output) > 0:
		for line := range bytes.Lines(e.Output) {
			fmt.Fprintf(b.out, "        %s\n", bytes.TrimRight(line, "\n"))
		}
	case e.Done && e.Cached:
		fmt.Fprintf(b.out, " cached  %s%d/%d  %s\n", name, e.Step, e.Steps, e.Text)
	case e.Done:
		fmt.Fprintf(b.out, "%4d ms  %s%d/%d  %s\n", e.Took.Milliseconds(), name, e.Step, e.Steps, e.Text)
	case b.redraw:
		text := fmt.Sprintf("    ...  %s%d/%d  %s", name, e.Step, e.Steps, e.Text)
		fmt.Fprint(b.out, text[:min(len(text), 79)])
		b.drawn = true
	}
}

func (b *buildProgress) warning(w build.Warning) {
	b.clear()
	at := ""
	if w.Line > 0 {
		at = fmt.Sprintf("line %d: ", w.Line)
	}
	if w.Rule != "" {
		at += w.Rule + ": "
	}
	fmt.Fprintf(b.out, "warning  %s%s\n", at, w.Text)
}
