package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// dockerfile is a parsed Dockerfile.
type dockerfile struct {
	path   string
	raw    []byte
	escape rune
	stages []instructions.Stage
	args   []instructions.ArgCommand
	lint   *linter.Linter
	// quiet are the checks of instructions that have a comment about them ("# check=skip=RULE"),
	// by line.
	quiet map[int]*linter.Linter
}

// Failure is an error at a place of the Dockerfile.
type Failure struct {
	Path string
	// Line and End are the instruction's first and last, from 1; 0 is unknown.
	Line, End int
	Err       error
	raw       []byte
}

// Error is "PATH:LINE: what".
func (f *Failure) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %v", f.Path, f.Err)
	}
	return fmt.Sprintf("%s:%d: %v", f.Path, f.Line, f.Err)
}

// Unwrap is the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Around is how many lines an excerpt shows before and after the instruction.
const around = 2

// Excerpt shows the instruction among its neighbours, marked, with line numbers.
func (f *Failure) Excerpt() string {
	if f.Line == 0 {
		return ""
	}
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimRight(string(f.raw), "\n"), "\n") {
		n := i + 1
		if n < f.Line-around || n > f.End+around {
			continue
		}
		mark := "   "
		if n >= f.Line && n <= f.End {
			mark = ">>>"
		}
		fmt.Fprintf(&b, "%4d | %s %s\n", n, mark, strings.TrimRight(line, "\r"))
	}
	return b.String()
}

// readDockerfile gives the Dockerfile's text.
func readDockerfile(opts Options) ([]byte, error) {
	if opts.Content != nil {
		return opts.Content, nil
	}
	f, err := openInput(opts.Context, opts.Dockerfile)
	if err != nil {
		return nil, fmt.Errorf("no Dockerfile at %q: %w", opts.Dockerfile, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxDockerfile+1))
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile %q: %w", opts.Dockerfile, err)
	}
	return raw, nil
}

// openInput opens what a person names. What lies in the context is as the context has it:
// symlinks do not lead out, be it that whoever made the context has put them there.
func openInput(context, name string) (*os.File, error) {
	dir, err1 := filepath.Abs(context)
	file, err2 := filepath.Abs(name)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	below, err := filepath.Rel(dir, file)
	if context == "" || err != nil || !filepath.IsLocal(below) {
		return os.Open(name)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	real, err := (&tree{Root: root}).follow(filepath.ToSlash(below))
	if err != nil {
		return nil, err
	}
	return root.OpenFile(real, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe without a writer is empty
}

// parse reads the Dockerfile of a build; an argument may say which checks it is put to.
func (o *Options) parse(raw []byte, warn func(Warning)) (dockerfile, error) {
	return parse(o.Dockerfile, raw, o.Args[argChecks], warn)
}

// parse reads a Dockerfile; what is wrong with it is told with its line, what is
// doubtful goes to warn unless a check directive, or checks in its place, says otherwise. The language is
// the one that we know, whatever a syntax directive names.
func parse(path string, raw []byte, checks string, warn func(Warning)) (dockerfile, error) {
	if len(raw) > MaxDockerfile {
		return dockerfile{}, fmt.Errorf("%s: more than %d bytes: %w", path, MaxDockerfile, image.ErrTooLarge)
	}
	d := dockerfile{path: path, raw: raw}
	tree, err := parser.Parse(bytes.NewReader(raw))
	if err != nil {
		return d, d.located(err)
	}
	config := &linter.Config{}
	text, _, at, ok := parser.ParseDirective("check", raw)
	if checks != "" {
		text, ok = checks, true
	}
	if ok {
		if config, err = linter.ParseLintOptions(text); err != nil {
			return d, d.at(at, err)
		}
	}
	config.Warn = func(rule, _, _, text string, at []parser.Range) {
		w := Warning{Rule: rule, Text: text}
		if len(at) > 0 {
			w.Line = at[0].Start.Line
		}
		warn(w)
	}
	lint := linter.New(config)
	if d.stages, d.args, err = instructions.Parse(tree.AST, lint); err != nil {
		return d, d.located(err)
	}
	if len(d.stages) == 0 {
		return d, &Failure{Path: d.path, Err: fmt.Errorf("dockerfile contains no stages to build: %w", image.ErrInvalid), raw: raw}
	}
	if n := len(tree.AST.Children); n > MaxInstructions {
		return d, &Failure{Path: d.path, Err: fmt.Errorf("%d instructions, at most %d: %w", n, MaxInstructions, image.ErrTooLarge), raw: raw}
	}
	d.lint, d.escape, d.quiet = lint, tree.EscapeToken, map[int]*linter.Linter{}
	for _, n := range tree.AST.Children {
		if len(n.PrevComment) > 0 {
			d.quiet[n.StartLine] = lint.WithMergedConfigFromComments(n.PrevComment)
		}
	}
	d.inspect(tree)
	if err := lint.Error(); err != nil {
		return d, d.located(err)
	}
	return d, nil
}

// lintAt is the linter of the instruction that begins there.
func (d dockerfile) lintAt(at []parser.Range) *linter.Linter {
	if len(at) > 0 {
		if own, ok := d.quiet[at[0].Start.Line]; ok {
			return own
		}
	}
	return d.lint
}

// located puts file and line before an error of the parser.
func (d dockerfile) located(err error) error {
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		return d.at(at.Locations[0], err)
	}
	return &Failure{Path: d.path, Err: err, raw: d.raw}
}

// at puts file and line before an error of an instruction.
func (d dockerfile) at(where []parser.Range, err error) error {
	if err == nil || len(where) == 0 {
		return err
	}
	return &Failure{Path: d.path, Line: where[0].Start.Line, End: where[len(where)-1].End.Line, Err: err, raw: d.raw}
}
