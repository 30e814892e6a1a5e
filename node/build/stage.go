package build

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

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
	// below is how many of the layers are the base image's.
	below int
	// key stands for everything that the stage consists of so far.
	key string
	// args are the ARGs in scope, with their values.
	args map[string]string
	// asked are the ARGs in scope, be it without a value.
	asked   map[string]bool
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

// begin starts a stage from its base: nothing, an earlier stage, or an image.
func (b *builder) begin(ctx context.Context, i int) (*stage, error) {
	spec, base := b.file.stages[i], b.bases[i]
	st := &stage{index: i, name: spec.Name, platform: b.platform, args: map[string]string{}, asked: map[string]bool{}, extra: map[string]any{}, shell: []string{"/bin/sh", "-c"}}
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
			return st, b.beginWith(ctx, st, base)
		}
		base = c.Image
	}
	if base == scratch {
		st.empty()
		return st, nil
	}
	img, layers, err := b.base(ctx, base, st.platform)
	if err != nil {
		return nil, err
	}
	st.config, st.layers, st.key, st.created = img.Config, layers, img.Manifest.String(), img.Created
	st.config.Config, st.below = cloneConfig(img.Config.Config), len(layers)
	return st, b.adopt(st, img)
}

// empty makes it a stage on nothing.
func (st *stage) empty() {
	// As BuildKit has it: ENV PATH=/my/bin:$PATH is right without a base, too.
	st.config.Platform, st.key = st.platform.oci(), scratch
	st.config.Config.Env, st.config.Config.WorkingDir = []string{defaultPath}, "/"
}

// beginWith makes it a stage on the files of a context.
func (b *builder) beginWith(ctx context.Context, st *stage, name string) error {
	st.empty()
	_, err := b.copy(ctx, st, &instructions.CopyCommand{From: name, SourcesAndDest: instructions.SourcesAndDest{SourcePaths: []string{"."}, DestPath: "/"}})
	if err == nil {
		st.remember("COPY --from="+name+" . /", false)
	}
	return err
}

// inherit takes over what an earlier stage has, its ARGs too.
func (st *stage) inherit(from *stage) error {
	st.config, st.layers, st.key, st.created = from.config, slices.Clone(from.layers), from.key, from.created
	st.config.Config = cloneConfig(from.config.Config)
	st.config.History = slices.Clone(from.config.History)
	st.shell, st.extra, st.args = slices.Clone(from.shell), maps.Clone(from.extra), maps.Clone(from.args)
	st.asked = maps.Clone(from.asked)
	st.fresh, st.below = st.fresh || from.fresh, from.below
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
