// Package build turns a Dockerfile and its context into an image. The syntax is
// BuildKit's own parser; evaluating it, the layers and the cache are ours.
//
// Each instruction that changes files makes one layer, found again under a key
// that is made of everything the layer depends on: the layers below, the
// instruction as expanded, and the content of the files it reads. Equal input
// gives an equal image.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of one build.
const (
	// MaxDockerfile bounds the Dockerfile in bytes.
	MaxDockerfile = 1 << 20
	// MaxContextFiles bounds the files that one COPY may take.
	MaxContextFiles = 1 << 20
)

// ErrUnsupported is the kind of every instruction or flag that this builder does
// not know yet.
var ErrUnsupported = errors.New("not supported")

// Options say what to build and with what.
type Options struct {
	// Context is the directory that COPY and ADD read.
	Context string
	// Dockerfile is its path; "" means Dockerfile in the context.
	Dockerfile string
	// Tags are the references given to the result; at least one.
	Tags []string
	// Args are values for ARG, as with --build-arg.
	Args map[string]string
	// Labels are added to the image last.
	Labels map[string]string
	// Target names the stage to stop at; "" means the last.
	Target string
	// NoCache runs every instruction though its layer is known.
	NoCache bool
	// Epoch, when set, is the newest time that a file or the image may show
	// (SOURCE_DATE_EPOCH), which makes builds of equal input equal to the byte.
	Epoch *time.Time

	// Images keeps the base images and the result.
	Images *image.Store
	// Cache is the directory of the build cache's records.
	Cache string
	// Runner executes RUN; nil means that RUN is an error.
	Runner Runner
	// Auth are the credentials for base images that must be pulled.
	Auth image.Auth
	// Progress is told of every step; nil means nobody wants to know. It may be
	// called from several goroutines.
	Progress func(Event)
}

// Event is one thing that a build has to tell.
type Event struct {
	// Stage and Step count from 1; Steps is how many there are in the stage.
	Stage, Step, Steps int
	// Text is the instruction as written.
	Text string
	// Done: the step is over; Cached: its layer was known.
	Done, Cached bool
	Took         time.Duration
	// Output is what a RUN printed just now.
	Output []byte
}

// Runner executes one RUN instruction.
type Runner interface {
	// Run runs the command over lower (topmost first) and upper, in which it
	// leaves its changes. An exit code other than zero is an *ExitError.
	Run(ctx context.Context, r Run) error
}

// Run is the command of a RUN instruction with all that it may see.
type Run struct {
	Args        []string
	Env         []string
	WorkingDir  string
	UID, GID    uint32
	User        string
	Lower       []string
	Upper, Work string
	Output      func([]byte)
	NetworkNone bool
}

// ExitError says that a command of the build failed.
type ExitError struct {
	Code int
	// Tail is the end of what the command printed.
	Tail string
}

// Error names the exit code.
func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// Build builds one image. Errors name the Dockerfile's line.
func Build(ctx context.Context, opts Options) (image.Image, error) {
	if opts.Dockerfile == "" {
		opts.Dockerfile = filepath.Join(opts.Context, "Dockerfile")
	}
	if opts.Progress == nil {
		opts.Progress = func(Event) {}
	}
	if len(opts.Tags) == 0 {
		return image.Image{}, fmt.Errorf("build %q: no tag given: %w", opts.Context, image.ErrInvalid)
	}
	file, err := parse(opts.Dockerfile)
	if err != nil {
		return image.Image{}, err
	}
	files, err := openContext(opts.Context, opts.Dockerfile)
	if err != nil {
		return image.Image{}, err
	}
	defer files.Close()
	content, err := opts.Images.NewBuild()
	if err != nil {
		return image.Image{}, err
	}
	defer content.Close()
	b := &builder{opts: opts, file: file, context: files, content: content, cache: cache{dir: opts.Cache}}
	return b.run(ctx)
}

// dockerfile is a parsed Dockerfile.
type dockerfile struct {
	path   string
	escape rune
	stages []instructions.Stage
	args   []instructions.ArgCommand
}

// parse reads a Dockerfile; what is wrong with it is told with its line.
func parse(path string) (dockerfile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return dockerfile{}, fmt.Errorf("no Dockerfile at %q: %w", path, err)
	}
	if info.Size() > MaxDockerfile {
		return dockerfile{}, fmt.Errorf("%s: more than %d bytes: %w", path, MaxDockerfile, image.ErrTooLarge)
	}
	f, err := os.Open(path)
	if err != nil {
		return dockerfile{}, err
	}
	defer f.Close()
	tree, err := parser.Parse(f)
	if err != nil {
		return dockerfile{}, located(path, err)
	}
	stages, args, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		return dockerfile{}, located(path, err)
	}
	return dockerfile{path: path, escape: tree.EscapeToken, stages: stages, args: args}, nil
}

// located puts file and line before an error of the parser.
func located(path string, err error) error {
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
		return fmt.Errorf("%s:%d: %w", path, at.Locations[0][0].Start.Line, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// at puts file and line before an error of an instruction.
func (d dockerfile) at(where []parser.Range, err error) error {
	if err == nil || len(where) == 0 {
		return err
	}
	return fmt.Errorf("%s:%d: %w", d.path, where[0].Start.Line, err)
}
