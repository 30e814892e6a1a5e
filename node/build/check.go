package build

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// Description is what a Dockerfile offers to whoever builds it.
type Description struct {
	// Warnings are what is doubtful in it.
	Warnings []Warning
	// Targets are its stages, of which the last is the default.
	Targets []Target
	// Args are the ARGs that the target, or else the default, can be given.
	Args []Arg
}

// Target is a stage.
type Target struct {
	Name, Base, Description string
	Default                 bool
}

// Arg is an ARG; Value is its default, if it has one.
type Arg struct {
	Name, Value, Description string
}

// Describe reads a Dockerfile and builds nothing. What makes no sense is an error, as
// for Build.
func Describe(opts Options) (Description, error) {
	var d Description
	opts.Warn = func(w Warning) { d.Warnings = append(d.Warnings, w) }
	if err := opts.complete(); err != nil {
		return d, err
	}
	raw, err := readDockerfile(opts)
	if err != nil {
		return d, err
	}
	file, err := opts.parse(raw, opts.Warn)
	if err != nil {
		return d, err
	}
	if err := describeCopies(opts, file); err != nil {
		return d, err
	}
	b := &builder{opts: opts, file: file, consumed: map[string]bool{}}
	wanted, err := b.target()
	if err != nil {
		return d, err
	}
	b.undefined(wanted)
	for _, cmd := range file.args {
		d.args(cmd)
	}
	for i, s := range file.stages {
		t := Target{Name: s.Name, Base: s.BaseName, Description: s.DocComment, Default: i == len(file.stages)-1}
		if t.Name == "" {
			t.Name = strconv.Itoa(i)
		}
		d.Targets = append(d.Targets, t)
	}
	for i := wanted; i >= 0; i = b.stageBefore(file.stages[i].BaseName, i) {
		for _, c := range file.stages[i].Commands {
			if cmd, ok := c.(*instructions.ArgCommand); ok {
				d.args(*cmd)
			}
		}
	}
	return d, nil
}

// undefined warns of variables that nothing sets, in the stages that one needs. A base that
// is not here may set any: of the stages on it nothing is said.
func (b *builder) undefined(last int) {
	var err error
	if b.platform, err = parsePlatform(b.opts.Platforms[0]); err != nil || b.prepare(last) != nil {
		return
	}
	needed, known := b.needed(last), map[int]*stage{}
	for i := range last + 1 {
		if st := b.scope(i, known); needed[i] && st != nil {
			known[i] = st
			for _, c := range b.file.stages[i].Commands {
				b.pretend(st, c)
			}
		}
	}
}

// scope is a stage with what its base sets, nil when that is not known.
func (b *builder) scope(i int, known map[int]*stage) *stage {
	st := &stage{args: map[string]string{}, asked: map[string]bool{}}
	if n := b.stageBefore(b.bases[i], i); n >= 0 {
		if known[n] == nil {
			return nil
		}
		st.args, st.asked = maps.Clone(known[n].args), maps.Clone(known[n].asked)
		st.config.Config.Env = slices.Clone(known[n].config.Config.Env)
		return st
	}
	if b.bases[i] == scratch {
		st.empty()
		return st
	}
	if _, ok := b.contextOf(b.bases[i]); ok || b.opts.Images == nil {
		return nil
	}
	img, err := b.opts.Images.Get(b.bases[i])
	if err != nil {
		return nil
	}
	st.config.Config.Env = slices.Clone(img.Config.Config.Env)
	return st
}

// pretend runs what an instruction does to variables. What fails, fails again, and with
// its place, when it is built.
func (b *builder) pretend(st *stage, c instructions.Command) {
	if cmd, ok := c.(*instructions.ArgCommand); ok {
		_ = b.arg(st, cmd)
		return
	}
	vars := st.variables()
	if e, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		_ = e.Expand(func(word string) (string, error) { return b.expandKnown(word, st, vars, c) })
	}
	if cmd, ok := c.(*instructions.EnvCommand); ok {
		for _, kv := range cmd.Env {
			st.config.Config.Env = setEnv(st.config.Config.Env, kv.Key, kv.Value)
		}
	}
}

// describeCopies warns of sources that .dockerignore hides, where their names are known
// without building.
func describeCopies(opts Options, file dockerfile) error {
	if opts.Context == "" {
		return nil
	}
	files, err := openContext(opts.Context, opts.Dockerfile)
	if err != nil {
		return err
	}
	defer files.Close()
	known := func(all []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.Contains(s, "$") || isURL(s) || isGit(s) })
	}
	for _, s := range file.stages {
		for _, c := range s.Commands {
			switch cmd := c.(type) {
			case *instructions.CopyCommand:
				if cmd.From == "" {
					err = files.lint(file.lintAt(c.Location()), "COPY", known(cmd.SourcePaths), c.Location())
				}
			case *instructions.AddCommand:
				err = files.lint(file.lintAt(c.Location()), "ADD", known(cmd.SourcePaths), c.Location())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Description) args(cmd instructions.ArgCommand) {
	for _, a := range cmd.Args {
		one := Arg{Name: a.Key, Value: a.ValueString(), Description: a.DocComment}
		known := false
		for i, other := range d.Args {
			if other.Name != one.Name {
				continue
			}
			known = true
			if other.Value == "" {
				d.Args[i].Value = one.Value
			}
		}
		if !known {
			d.Args = append(d.Args, one)
		}
	}
}

// String is the warning on one line.
func (w Warning) String() string {
	text := w.Text
	if w.Rule != "" {
		text = w.Rule + ": " + text
	}
	if w.Line > 0 {
		text = fmt.Sprintf("line %d: %s", w.Line, text)
	}
	return text
}
