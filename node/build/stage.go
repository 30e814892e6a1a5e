package build

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// stage is an image in the making.
type stage struct {
	index int
	name  string
	// platform is what it is for: the build's, or what its FROM says.
	platform platform
	config   ocispec.Image
	// extra are the keys of the config that the OCI type lacks.
	extra  map[string]any
	layers []image.Layer
	// key stands for everything that the stage consists of so far.
	key string
	// args are the ARGs in scope, with their values.
	args    map[string]string
	shell   []string
	created time.Time
	// triggers are the ONBUILDs of the base, to be run first.
	triggers []string
	fresh    bool
	// ownCmd: it has a CMD of its own.
	ownCmd bool
}

// scratch is the name of the empty base.
const scratch = "scratch"

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
	return 0, fmt.Errorf("%s: no stage is called %q: %w", b.file.path, b.opts.Target, image.ErrNotFound)
}

// prepare finds the values of the global ARGs, and with them the bases.
func (b *builder) prepare(last int) error {
	b.globals = platformArgs(b.platform, b.file.stages[last].Name)
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

// argument is the value of one ARG: what the caller gave, else its default.
func (b *builder) argument(a instructions.KeyValuePairOptional, scope map[string]string) (*string, error) {
	if given, ok := b.opts.Args[a.Key]; ok {
		b.mu.Lock()
		b.consumed[a.Key] = true
		b.mu.Unlock()
		return &given, nil
	}
	if a.Value == nil {
		return nil, nil
	}
	value, err := b.expand(*a.Value, scope)
	return &value, err
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

// expand replaces variables in a word.
func (b *builder) expand(word string, vars map[string]string) (string, error) {
	got, _, err := b.process(word, vars, false)
	return got, err
}

// expandKnown is expand for an instruction's word, which warns of variables that
// nothing has set.
func (b *builder) expandKnown(word string, vars map[string]string, cmd instructions.Command) (string, error) {
	got, unknown, err := b.process(word, vars, false)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range reference.FindAllStringSubmatch(word, -1) {
		name := m[1] + m[3]
		if _, ok := unknown[name]; !ok || m[2] != "" { // it says what it is when nothing sets it
			continue
		}
		b.file.lint.Run(&linter.RuleUndefinedVar, cmd.Location(), linter.RuleUndefinedVar.Format(name, ""))
	}
	return got, err
}

// expandRaw is expand for text in which quotes stay as they are: heredocs.
func (b *builder) expandRaw(text string, vars map[string]string) (string, error) {
	got, _, err := b.process(text, vars, true)
	return got, err
}

// begin starts a stage from its base: nothing, an earlier stage, or an image.
func (b *builder) begin(ctx context.Context, i int) (*stage, error) {
	spec, base := b.file.stages[i], b.bases[i]
	st := &stage{index: i, name: spec.Name, platform: b.platform, args: map[string]string{}, extra: map[string]any{}, shell: []string{"/bin/sh", "-c"}}
	st.fresh = b.opts.NoCache || slices.ContainsFunc(b.opts.NoCacheStages, func(n string) bool {
		return strings.EqualFold(n, spec.Name) || n == strconv.Itoa(i)
	})
	if spec.Platform != "" {
		name, err := b.expand(spec.Platform, b.globals)
		if err != nil {
			return nil, err
		}
		if st.platform, err = parsePlatform(name); err != nil {
			return nil, err
		}
	}
	if n := b.stageBefore(base, i); n >= 0 {
		from, err := b.await(ctx, n)
		if err != nil {
			return nil, err
		}
		return st, st.inherit(from)
	}
	if c, ok := b.contextOf(base); ok {
		if c.Image == "" {
			return nil, fmt.Errorf("the context %q is a directory, which can't be a base: FROM scratch and COPY --from=%s: %w", base, base, ErrUnsupported)
		}
		base = c.Image
	}
	if base == scratch {
		// As BuildKit has it: ENV PATH=/my/bin:$PATH is right without a base, too.
		st.config.Platform, st.key = st.platform.oci(), scratch
		st.config.Config.Env, st.config.Config.WorkingDir = []string{defaultPath}, "/"
		return st, nil
	}
	img, layers, err := b.base(ctx, base, st.platform)
	if err != nil {
		return nil, err
	}
	st.config, st.layers, st.key, st.created = img.Config, layers, img.Manifest.String(), img.Created
	st.config.Config = cloneConfig(img.Config.Config)
	return st, b.adopt(st, img)
}

// inherit takes over what an earlier stage has, its ARGs too.
func (st *stage) inherit(from *stage) error {
	st.config, st.layers, st.key, st.created = from.config, slices.Clone(from.layers), from.key, from.created
	st.config.Config = cloneConfig(from.config.Config)
	st.config.History = slices.Clone(from.config.History)
	st.shell, st.extra, st.args = slices.Clone(from.shell), maps.Clone(from.extra), maps.Clone(from.args)
	st.fresh = st.fresh || from.fresh
	triggers, _ := st.extra["OnBuild"].([]string)
	delete(st.extra, "OnBuild")
	st.triggers = triggers
	return nil
}

// adopt reads what the OCI type leaves out of a base image's config.
func (b *builder) adopt(st *stage, img image.Image) error {
	raw, err := b.opts.Images.RawConfig(img)
	if err != nil {
		return err
	}
	var whole struct {
		Config struct {
			Healthcheck json.RawMessage
			OnBuild     []string
			Shell       []string
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &whole); err != nil {
		return fmt.Errorf("config of %q: %w: %w", img.ID, image.ErrInvalid, err)
	}
	c := whole.Config
	if len(c.Healthcheck) > 0 && string(c.Healthcheck) != "null" {
		st.extra["Healthcheck"] = c.Healthcheck
	}
	if len(c.Shell) > 0 {
		st.shell, st.extra["Shell"] = c.Shell, c.Shell
	}
	st.triggers = c.OnBuild
	return nil
}

// stage runs the instructions of one stage, those first that its base has left
// for it.
func (b *builder) stage(ctx context.Context, i int) (*stage, error) {
	spec := b.file.stages[i]
	st, err := b.begin(ctx, i)
	if err != nil {
		return nil, b.file.at(spec.Location, fmt.Errorf("%s: %w", spec.SourceCode, err))
	}
	commands := make([]instructions.Command, 0, len(st.triggers)+len(spec.Commands))
	for _, t := range st.triggers {
		cmd, err := trigger(t)
		if err != nil {
			return nil, b.file.at(spec.Location, fmt.Errorf("%s: ONBUILD %s: %w", spec.SourceCode, t, err))
		}
		commands = append(commands, cmd)
	}
	left := len(commands)
	commands = append(commands, spec.Commands...)
	for n, cmd := range commands {
		where := cmd.Location()
		if n < left {
			where = spec.Location
		}
		event := Event{Stage: i + 1, Name: spec.Name, Step: n + 1, Steps: len(commands), Text: text(cmd)}
		if err := b.step(ctx, st, step{cmd: cmd, event: event}); err != nil {
			return nil, b.file.at(where, fmt.Errorf("%s: %w", event.Text, err))
		}
	}
	return st, nil
}

// trigger reads an instruction that ONBUILD has kept.
func trigger(line string) (instructions.Command, error) {
	tree, err := parser.Parse(strings.NewReader(line))
	if err != nil {
		return nil, err
	}
	if len(tree.AST.Children) != 1 {
		return nil, fmt.Errorf("not one instruction: %w", image.ErrInvalid)
	}
	return instructions.ParseCommand(tree.AST.Children[0])
}

// step runs one instruction when its turn has come and what it reads is there.
func (b *builder) step(ctx context.Context, st *stage, s step) error {
	for _, from := range sourcesOf(s.cmd) {
		if i := b.stageBefore(from, st.index); i >= 0 {
			if _, err := b.await(ctx, i); err != nil {
				return err
			}
		}
	}
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.opts.Progress(s.event)
	start, layers := time.Now(), len(st.layers)
	cached, err := b.instruction(ctx, st, s)
	if err != nil {
		return err
	}
	st.remember(s.event.Text, len(st.layers) == layers)
	s.event.Done, s.event.Cached, s.event.Took = true, cached, time.Since(start)
	b.opts.Progress(s.event)
	return nil
}

// remember adds a line to the image's history.
func (st *stage) remember(text string, empty bool) {
	h := ocispec.History{CreatedBy: text, Comment: "sampan", EmptyLayer: empty}
	if !st.created.IsZero() {
		at := st.created.UTC()
		h.Created = &at
	}
	st.config.History = append(st.config.History, h)
}

// text is an instruction as it was written, on one line.
func text(cmd instructions.Command) string {
	if s, ok := cmd.(fmt.Stringer); ok {
		return s.String()
	}
	return strings.ToUpper(cmd.Name())
}

func cloneConfig(c ocispec.ImageConfig) ocispec.ImageConfig {
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	c.Env = slices.Clone(c.Env)
	return c
}
