package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// symptoms are what the kernel says of programs that the disk has changed, and hardly of
// others: one that was made for another machine is "exec format error", too.
var symptoms = []error{unix.ENOEXEC, unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.ELIBBAD} //nolint:gochecknoglobals // a constant list

// maxDoubts bounds the images of which something is remembered.
const maxDoubts = 1000

// doubts are the images of which a program could not be run, by their IDs.
type doubts struct {
	mu     sync.Mutex
	images map[string]*doubt
}

// doubt is what is wrong with an image here, once it has been looked at; "" is nothing.
type doubt struct {
	looked chan struct{}
	found  string
}

// lookFor is how long a container that could not be started is not said to have failed
// since its image is looked at: a small one's damage is told at once.
const lookFor = 2 * time.Second

// doubt has the image of a container looked at, once and in the background, when the
// container could not be started for a reason that damage of the image may have. What was
// found is part of the error, now or when whoever runs the container tries again.
func (e *Engine) doubt(ctx context.Context, c *ctr, failed error) error {
	text := failed.Error()
	if !slices.ContainsFunc(symptoms, func(s error) bool { return strings.Contains(text, s.Error()) }) {
		return failed
	}
	d := e.doubtOf(c.ImageID)
	if d == nil {
		return failed
	}
	wait := time.NewTimer(lookFor)
	defer wait.Stop()
	select {
	case <-d.looked:
		if d.found != "" {
			return fmt.Errorf("%w (%s)", failed, d.found)
		}
	case <-wait.C:
	case <-ctx.Done():
	}
	return failed
}

// doubtOf is what is known of an image, which is looked at if nobody has; nil when too many
// have been.
func (e *Engine) doubtOf(id string) *doubt {
	e.doubts.mu.Lock()
	defer e.doubts.mu.Unlock()
	if d := e.doubts.images[id]; d != nil || len(e.doubts.images) >= maxDoubts {
		return d
	}
	if e.doubts.images == nil {
		e.doubts.images = map[string]*doubt{}
	}
	d := &doubt{looked: make(chan struct{})}
	e.doubts.images[id] = d
	e.running.Go(func() { e.look(id, d) })
	return d
}

// look compares an image with its digests.
func (e *Engine) look(id string, d *doubt) {
	defer close(d.looked)
	found, err := e.images.Check(e.life, image.CheckOptions{Image: id})
	if e.life.Err() != nil {
		return
	}
	if err != nil {
		e.log.Warn("an image of which a program can't be run could not be compared with its digests", "image", id, "error", err)
		return
	}
	if len(found.Damaged) == 0 {
		return
	}
	first := found.Damaged[0]
	e.log.Error("an image of which a program can't be run is damaged here: sampan system check --repair mends what can be",
		"image", id, "names", first.Images, "damaged", first.Digest, "cause", first.Cause, "further", len(found.Damaged)-1)
	d.found = fmt.Sprintf("the image is damaged on this node: %s: %v; sampan system check --repair mends what can be", first.Digest, first.Cause)
}
