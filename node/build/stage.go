package build

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// builder is one build under way.
type builder struct {
	opts    Options
	file    dockerfile
	context *buildContext
	content *image.Build
	cache   cache
	done    []*stage
}

// stage is an image in the making.
type stage struct {
	name string
	// globals are the ARGs before the first FROM: in scope once declared again.
	globals map[string]string
	config  ocispec.Image
	// extra are the keys of the config that the OCI type lacks.
	extra  map[string]any
	layers []image.Layer
	// key stands for everything that the stage consists of so far.
	key string
	// args are the ARGs in scope, with their values.
	args    map[string]string
	shell   []string
	created time.Time
}

// scratch is the name of the empty base.
const scratch = "scratch"

// run builds the stages that the target needs, in order, and commits the last.
func (b *builder) run(ctx context.Context) (image.Image, error) {
	last, err := b.target()
	if err != nil {
		return image.Image{}, err
	}
	globals, err := b.globals()
	if err != nil {
		return image.Image{}, err
	}
	needed := b.needed(last)
	for i, spec := range b.file.stages[:last+1] {
		if !needed[i] {
			b.done = append(b.done, nil)
			continue
		}
		st, err := b.begin(ctx, spec, globals)
		if err != nil {
			return image.Image{}, b.file.at(spec.Location, fmt.Errorf("%s: %w", spec.SourceCode, err))
		}
		if err := b.stage(ctx, st, i); err != nil {
			return image.Image{}, err
		}
		b.done = append(b.done, st)
	}
	return b.commit(ctx, b.done[last])
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

// needed marks the stages that stage last stands on or copies from.
func (b *builder) needed(last int) map[int]bool {
	marks := map[int]bool{}
	var mark func(i int)
	mark = func(i int) {
		if i < 0 || marks[i] {
			return
		}
		marks[i] = true
		mark(b.stageBefore(b.file.stages[i].BaseName, i))
		for _, c := range b.file.stages[i].Commands {
			if copying, ok := c.(*instructions.CopyCommand); ok && copying.From != "" {
				mark(b.stageBefore(copying.From, i))
			}
		}
	}
	mark(last)
	return marks
}

// stageBefore finds an earlier stage by name or number; -1: there is none.
func (b *builder) stageBefore(name string, before int) int {
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

// globals are the ARGs before the first FROM, and those that every build has.
func (b *builder) globals() (map[string]string, error) {
	args := map[string]string{
		"TARGETPLATFORM": "linux/" + runtime.GOARCH, "TARGETOS": "linux", "TARGETARCH": runtime.GOARCH,
		"BUILDPLATFORM": "linux/" + runtime.GOARCH, "BUILDOS": "linux", "BUILDARCH": runtime.GOARCH,
	}
	for _, cmd := range b.file.args {
		for _, a := range cmd.Args {
			value, err := b.argument(a, args)
			if err != nil {
				return nil, b.file.at(cmd.Location(), err)
			}
			if value != nil {
				args[a.Key] = *value
			}
		}
	}
	return args, nil
}

// argument is the value of one ARG: what the caller gave, else its default.
func (b *builder) argument(a instructions.KeyValuePairOptional, scope map[string]string) (*string, error) {
	if given, ok := b.opts.Args[a.Key]; ok {
		return &given, nil
	}
	if a.Value == nil {
		return nil, nil
	}
	value, err := b.expand(*a.Value, scope)
	return &value, err
}

// expand replaces variables in a word.
func (b *builder) expand(word string, vars map[string]string) (string, error) {
	var env []string
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, k+"="+vars[k])
	}
	got, _, err := shell.NewLex(b.file.escape).ProcessWord(word, shell.EnvsFromSlice(env))
	return got, err
}

// begin starts a stage from its base: nothing, an earlier stage, or an image.
func (b *builder) begin(ctx context.Context, spec instructions.Stage, globals map[string]string) (*stage, error) {
	base, err := b.expand(spec.BaseName, globals)
	if err != nil {
		return nil, err
	}
	if base == "" {
		return nil, fmt.Errorf("the base image's name is empty after expansion: %w", image.ErrInvalid)
	}
	st := &stage{
		name: spec.Name, globals: globals, args: map[string]string{}, extra: map[string]any{},
		shell: []string{"/bin/sh", "-c"},
	}
	if i := b.stageBefore(base, len(b.done)); i >= 0 && b.done[i] != nil {
		from := b.done[i]
		st.config, st.layers, st.key, st.created = from.config, slices.Clone(from.layers), from.key, from.created
		st.config.Config = cloneConfig(from.config.Config)
		st.shell, st.extra = from.shell, maps.Clone(from.extra)
		return st, nil
	}
	st.config.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if base == scratch {
		st.key = scratch
		return st, nil
	}
	img, layers, err := b.base(ctx, base)
	if err != nil {
		return nil, err
	}
	st.config, st.layers, st.key, st.created = img.Config, layers, img.Manifest.String(), img.Created
	st.config.Config = cloneConfig(img.Config.Config)
	return st, nil
}

// base finds an image in the store, or pulls it.
func (b *builder) base(ctx context.Context, ref string) (image.Image, []image.Layer, error) {
	img, layers, err := b.content.Base(ref)
	if err == nil {
		return img, layers, nil
	}
	if _, err := b.opts.Images.Pull(ctx, ref, image.TransferOptions{Auth: b.opts.Auth}); err != nil {
		return image.Image{}, nil, fmt.Errorf("base image %q is not here and could not be pulled: %w", ref, err)
	}
	return b.content.Base(ref)
}

// stage runs the instructions of one stage.
func (b *builder) stage(ctx context.Context, st *stage, index int) error {
	commands := b.file.stages[index].Commands
	for i, cmd := range commands {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		event := Event{Stage: index + 1, Step: i + 1, Steps: len(commands), Text: text(cmd)}
		b.opts.Progress(event)
		start := time.Now()
		cached, err := b.instruction(ctx, st, step{cmd: cmd, event: event})
		if err != nil {
			return b.file.at(cmd.Location(), fmt.Errorf("%s: %w", event.Text, err))
		}
		event.Done, event.Cached, event.Took = true, cached, time.Since(start)
		b.opts.Progress(event)
	}
	return nil
}

// text is an instruction as it was written, on one line.
func text(cmd instructions.Command) string {
	if s, ok := cmd.(fmt.Stringer); ok {
		return s.String()
	}
	return strings.ToUpper(cmd.Name())
}

// commit names the finished stage with every tag.
func (b *builder) commit(ctx context.Context, st *stage) (image.Image, error) {
	for k, v := range b.opts.Labels {
		if st.config.Config.Labels == nil {
			st.config.Config.Labels = map[string]string{}
		}
		st.config.Config.Labels[k] = v
	}
	created := st.created.UTC()
	if b.opts.Epoch != nil {
		created = b.opts.Epoch.UTC()
	}
	if !created.IsZero() {
		st.config.Created = &created
	}
	var img image.Image
	for _, tag := range b.opts.Tags {
		made, err := b.content.Commit(ctx, st.config, st.layers, image.Naming{Ref: tag, Extra: st.extra})
		if err != nil {
			return image.Image{}, fmt.Errorf("commit %q: %w", tag, err)
		}
		img = made
	}
	return img, nil
}

func cloneConfig(c ocispec.ImageConfig) ocispec.ImageConfig {
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	c.Env = slices.Clone(c.Env)
	return c
}
