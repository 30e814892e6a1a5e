package build

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/util/suggest"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/node/image"
)

// builder is one build under way, for one platform.
type builder struct {
	opts     Options
	file     dockerfile
	context  *buildContext
	named    map[string]*buildContext
	content  *image.Build
	platform platform
	// alone: what comes out is the result, and not part of an index.
	alone bool
	// travel are the layers that come from elsewhere and go there.
	travel *travel
	// slots bound the instructions that run at once.
	slots chan struct{}
	// bases are the stages' FROMs, expanded.
	bases   []string
	globals map[string]string
	done    []*outcome

	// mu guards what the stages add to together.
	mu        sync.Mutex
	consumed  map[string]bool
	materials []material
	pulled    map[string]error
	started   time.Time
}

// outcome is a stage's, once ready is closed. Stages wait only for earlier ones, and so
// start those that nobody has known to be needed: an ONBUILD of an image may name them.
type outcome struct {
	start sync.Once
	begin func()
	ready chan struct{}
	stage *stage
	err   error
}

// run builds the stages that the target needs and commits the last.
func (b *builder) run(ctx context.Context) (image.Image, error) {
	b.started = time.Now()
	b.pulled = map[string]error{}
	last, err := b.target()
	if err != nil {
		return image.Image{}, err
	}
	if err := b.prepare(last); err != nil {
		return image.Image{}, err
	}
	needed := b.needed(last)
	group, gctx := errgroup.WithContext(ctx)
	for i := range last + 1 {
		o := &outcome{ready: make(chan struct{})}
		o.begin = func() {
			group.Go(func() error {
				defer close(o.ready)
				o.stage, o.err = b.stage(gctx, i)
				return o.err
			})
		}
		b.done = append(b.done, o)
	}
	for i := range last + 1 {
		if needed[i] {
			b.done[i].start.Do(b.done[i].begin)
		}
	}
	if err := group.Wait(); err != nil {
		return image.Image{}, err
	}
	b.unconsumed()
	return b.commit(ctx, b.done[last].stage)
}

// target is the index of the stage wanted.
func (b *builder) target() (int, error) {
	if b.opts.Target == "" {
		return len(b.file.stages) - 1, nil
	}
	for i, s := range b.file.stages {
		if strings.EqualFold(s.Name, b.opts.Target) || strconv.Itoa(i) == b.opts.Target {
			return i, nil
		}
	}
	var names []string
	for _, s := range b.file.stages {
		names = append(names, s.Name)
	}
	hint, ok := suggest.Search(b.opts.Target, names, false)
	if ok {
		hint = " (did you mean " + hint + "?)"
	}
	return 0, fmt.Errorf("%s: target stage %q could not be found%s: %w", b.file.path, b.opts.Target, hint, image.ErrNotFound)
}

// prepare finds the values of the global ARGs, and with them the bases.
func (b *builder) prepare(last int) error {
	b.globals = platformArgs(b.platform, cmp.Or(b.opts.Target, b.file.stages[last].Name, "default"))
	for name := range b.globals {
		if given, ok := b.opts.Args[name]; ok {
			b.globals[name] = given
			b.consumed[name] = true
		}
	}
	for _, cmd := range b.file.args {
		for _, a := range cmd.Args {
			value, err := b.argument(a, b.globals)
			if err != nil {
				return b.file.at(cmd.Location(), err)
			}
			if value != nil {
				b.globals[a.Key] = *value
			}
		}
	}
	for _, spec := range b.file.stages[:last+1] {
		base, err := b.expand(spec.BaseName, b.globals)
		if err == nil && base == "" {
			err = fmt.Errorf("the base image's name %q is empty after expansion: %w", spec.BaseName, image.ErrInvalid)
		}
		if err != nil {
			return b.file.at(spec.Location, fmt.Errorf("%s: %w", spec.SourceCode, err))
		}
		b.bases = append(b.bases, base)
	}
	return nil
}

// needed marks the stages that stage last stands on or copies from.
func (b *builder) needed(last int) map[int]bool {
	marks := map[int]bool{}
	var mark func(i int)
	mark = func(i int) {
		if i < 0 || marks[i] {
			return
		}
		marks[i] = true
		mark(b.stageBefore(b.bases[i], i))
		for _, c := range b.file.stages[i].Commands {
			for _, from := range sourcesOf(c) {
				mark(b.stageBefore(from, i))
			}
		}
	}
	mark(last)
	return marks
}

// sourcesOf are the stages or images that an instruction reads from.
func sourcesOf(c instructions.Command) []string {
	var all []string
	switch cmd := c.(type) {
	case *instructions.CopyCommand:
		if cmd.From != "" {
			all = append(all, cmd.From)
		}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(cmd) {
			if m.From != "" {
				all = append(all, m.From)
			}
		}
	}
	return all
}

// stageBefore finds an earlier stage by name or number; -1: there is none. Of two
// with one name, the later counts.
func (b *builder) stageBefore(name string, before int) int {
	if _, ok := b.contextOf(name); ok {
		return -1
	}
	for i := before - 1; i >= 0; i-- {
		if strings.EqualFold(b.file.stages[i].Name, name) {
			return i
		}
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < before {
		return i
	}
	return -1
}

// await returns an earlier stage once it is built.
func (b *builder) await(ctx context.Context, i int) (*stage, error) {
	b.done[i].start.Do(b.done[i].begin)
	select {
	case <-b.done[i].ready:
		return b.done[i].stage, b.done[i].err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// unconsumed warns of arguments that no ARG has asked for.
func (b *builder) unconsumed() {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(b.opts.Args)) {
		if !b.consumed[name] && !isProxy(name) && name != "SOURCE_DATE_EPOCH" && !strings.HasPrefix(name, "BUILDKIT_") {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		b.opts.Warn(Warning{Text: fmt.Sprintf("no ARG has asked for the build arguments %s", strings.Join(names, ", "))})
	}
}
