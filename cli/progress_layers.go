package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// redrawEvery is how often a terminal's lines of progress are drawn at most, and
// maxDrawn how many layers are.
const (
	redrawEvery = 100 * time.Millisecond
	maxDrawn    = 8
)

// layersTo prints a line for each layer that has arrived, and on a terminal how
// far the others are, below.
func layersTo(out io.Writer) func(image.Progress) {
	p := &layerProgress{out: out, redraw: terminal(out), under: map[string]image.Progress{}}
	return p.tell
}

// layerProgress is how far the layers of one pull or push are.
type layerProgress struct {
	mu     sync.Mutex
	out    io.Writer
	redraw bool
	last   time.Time
	// drawn is how many lines there are to be drawn over.
	drawn int
	// order are those under way, as they came.
	order []string
	under map[string]image.Progress
}

func (l *layerProgress) tell(p image.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := shortID(p.Layer.String())
	if !p.Present && p.Done < p.Total {
		if _, known := l.under[id]; !known {
			l.order = append(l.order, id)
		}
		l.under[id] = p
		if l.redraw && time.Since(l.last) >= redrawEvery {
			l.clear()
			l.draw()
		}
		return
	}
	l.clear()
	delete(l.under, id)
	l.order = slices.DeleteFunc(l.order, func(other string) bool { return other == id })
	if p.Present {
		fmt.Fprintf(l.out, "%s  is here already\n", id)
	} else {
		fmt.Fprintf(l.out, "%s  %s\n", id, size(p.Total))
	}
	if l.redraw {
		l.draw()
	}
}

// clear takes away what was drawn.
func (l *layerProgress) clear() {
	if l.drawn > 0 {
		fmt.Fprintf(l.out, "\x1b[%dA\x1b[J", l.drawn)
		l.drawn = 0
	}
}

// barWidth is how many characters a bar has.
const barWidth = 24

// draw shows what is under way: a line each for those that have begun, and one for
// all together.
func (l *layerProgress) draw() {
	var done, total int64
	for _, id := range l.order {
		p := l.under[id]
		done, total = done+p.Done, total+p.Total
		if p.Done == 0 || l.drawn == maxDrawn {
			continue
		}
		full := int(p.Done * barWidth / max(p.Total, 1))
		fmt.Fprintf(l.out, "%s  %s%s  %s of %s\n", id, strings.Repeat("━", full), strings.Repeat("·", barWidth-full), size(p.Done), size(p.Total))
		l.drawn++
	}
	if len(l.order) > 0 {
		fmt.Fprintf(l.out, "%d layers to come, %s of %s\n", len(l.order), size(done), size(total))
		l.drawn++
	}
	l.last = time.Now()
}
