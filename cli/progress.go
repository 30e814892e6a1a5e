package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
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

// redrawEvery is how often a terminal's line of progress is drawn at most.
const redrawEvery = 100 * time.Millisecond

// layersTo prints a line for each layer that has arrived, and on a terminal how
// far the others are.
func layersTo(out io.Writer) func(image.Progress) {
	p := &layerProgress{out: out, redraw: terminal(out), under: map[string]image.Progress{}}
	return p.tell
}

type layerProgress struct {
	mu     sync.Mutex
	out    io.Writer
	redraw bool
	last   time.Time
	drawn  bool
	under  map[string]image.Progress
}

func (l *layerProgress) tell(p image.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := shortID(p.Layer.String())
	if p.Present || p.Done == p.Total {
		if l.drawn {
			fmt.Fprint(l.out, "\r\x1b[K")
			l.drawn = false
		}
		delete(l.under, id)
		if p.Present {
			fmt.Fprintf(l.out, "%s  is here already\n", id)
			return
		}
		fmt.Fprintf(l.out, "%s  %s\n", id, size(p.Total))
		return
	}
	l.under[id] = p
	if !l.redraw || time.Since(l.last) < redrawEvery {
		return
	}
	var done, total int64
	for _, u := range l.under {
		done, total = done+u.Done, total+u.Total
	}
	fmt.Fprintf(l.out, "\r\x1b[K%d layers  %s of %s", len(l.under), size(done), size(total))
	l.last, l.drawn = time.Now(), true
}

// writeTo writes a file, or standard output for "-"; a file that could not be
// written whole is removed.
func writeTo(dest string, stdout io.Writer, write func(io.Writer) error) error {
	if dest == "-" {
		return write(stdout)
	}
	f, err := os.OpenFile(dest, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644) //nolint:gosec // as any program's output
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		os.Remove(dest)
		return err
	}
	return f.Close()
}
