// Package build turns a Dockerfile and its context into an image. The syntax is
// BuildKit's own parser; evaluating it, the layers and the cache are ours.
//
// Each instruction that changes files makes one layer, found again under a key
// that is made of everything the layer depends on: the layers below, the
// instruction as expanded, and the content of the files it reads. Equal input
// gives an equal image. Stages that do not need each other run at the same time.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of one build.
const (
	// MaxDockerfile bounds the Dockerfile in bytes.
	MaxDockerfile = 1 << 20
	// MaxInstructions bounds those of a Dockerfile: each is a step, and a line of the
	// image's history.
	MaxInstructions = 10_000
	// MaxContextFiles bounds the files that one COPY may take.
	MaxContextFiles = 1 << 20
	// MaxDownload bounds what an ADD fetches, in bytes.
	MaxDownload = 8 << 30
	// MaxSecret bounds a secret in bytes.
	MaxSecret = 500 << 10
	// parallelSteps is how many instructions, of several stages, run at once.
	parallelSteps = 4
)

// ErrUnsupported is the kind of every instruction or flag that this builder does
// not know yet.
var ErrUnsupported = errors.New("not supported")

// Options say what to build and with what.
type Options struct {
	// Context is the directory that COPY and ADD read.
	Context string
	// Contexts are further ones by name, for FROM, COPY --from and mounts; they count
	// more than stages and images of the same name.
	Contexts map[string]NamedContext
	// Dockerfile is its path; "" means Dockerfile in the context. Content, when
	// it is not nil, is its text, and Dockerfile only what errors call it.
	Dockerfile string
	Content    []byte
	// Tags are the references given to the result; none lists it without a name.
	Tags []string
	// Args are values for ARG, as with --build-arg.
	Args map[string]string
	// Labels are added to the image last.
	Labels map[string]string
	// Target names the stage to stop at; "" means the last.
	Target string
	// Platforms are what the image is for ("linux/arm64"); none means this
	// machine, several make an index.
	Platforms []string
	// NoCache runs every instruction though its layer is known; NoCacheStages
	// does so for the stages of these names.
	NoCache       bool
	NoCacheStages []string
	// CacheFrom are where layers of other machines' builds are looked for, CacheTo
	// where those of this build go.
	CacheFrom, CacheTo []CachePlace
	// Compression is that of the layers that are made, and with Recompress of those of base
	// images too.
	Compression image.Compression
	Recompress  bool
	// DockerTypes gives the image Docker's media types in place of the OCI's, where
	// they have words for all that is in it.
	DockerTypes bool
	// Annotations are put on the image's manifest.
	Annotations map[string]string
	// NetworkNone keeps RUNs that don't say otherwise from the network; Hosts are
	// lines ("ADDRESS NAME") that they find in /etc/hosts besides.
	NetworkNone bool
	Hosts       []string
	// Ulimits are further limits of RUNs' processes. ShmSize is that of their
	// /dev/shm in bytes; 0 means 64 MiB.
	Ulimits []Ulimit
	ShmSize int64
	// Insecure lets a RUN ask for --security=insecure.
	Insecure bool
	// AllowDevices are the devices that a RUN may have which are not everybody's, by name or
	// kind; "" is all of them.
	AllowDevices []string
	// Pull asks registries for base images that are here already.
	Pull bool
	// Secrets are for RUN --mount=type=secret, by ID; Agents are sockets of SSH
	// agents for type=ssh, by ID.
	Secrets map[string]Secret
	Agents  map[string]string
	// Provenance attaches a statement of what went into the image, SBOM one of the
	// packages that are in it.
	Provenance, SBOM bool
	// Epoch, when set, is the newest time that a file or the image may show
	// (SOURCE_DATE_EPOCH), which makes builds of equal input equal to the byte.
	Epoch *time.Time

	// Images keeps the base images, the result, and the cache of layers.
	Images *image.Store
	// Cache is the directory of cache mounts and of what RUNs write; it must not
	// be on an overlay file system when there is a RUN.
	Cache string
	// Runner executes RUN; nil means that RUN is an error.
	Runner Runner
	// Pulls say how base images are pulled.
	Pulls image.TransferOptions
	// Progress is told of every step; nil means nobody wants to know. It is never
	// called twice at once.
	Progress func(Event)
	// Warn is told of what is doubtful in the Dockerfile, and of what could not be
	// done and need not be. It and Progress are never called at once.
	Warn func(Warning)
	// OnResult, when set, is told of the build's records after each platform, OnImage of
	// its image.
	OnResult func(Provenance)
	OnImage  func(platform string, img image.Image)
}

// NamedContext is a directory, or an image in place of another.
type NamedContext struct{ Dir, Image string }

// Secret is one value that a RUN may see and no layer keeps.
type Secret struct {
	// File is where it is; "" means the value in Value.
	File  string
	Value []byte
}

// Warning is something doubtful in a Dockerfile.
type Warning struct {
	Rule, Text string
	// Line is where, from 1; 0 is nowhere in particular.
	Line int
}

// Event is one thing that a build has to tell.
type Event struct {
	// Stage and Step count from 1; Steps is how many there are in the stage.
	Stage, Step, Steps int
	// Name is the stage's, when it has one.
	Name string
	// Text is the instruction as written.
	Text string
	// Done: the step is over; Cached: its layer was known.
	Done, Cached bool
	Took         time.Duration
	// Output is what a RUN printed just now.
	Output []byte
}

// Runner executes one RUN instruction. It may be called concurrently.
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
	Groups      []uint32
	User        string
	Lower       []string
	Upper, Work string
	Mounts      []Mount
	Output      func([]byte)
	NetworkNone bool
	// Insecure: it has everything that root has here but the namespaces.
	Insecure bool
	// Devices are the names of those that it has.
	Devices []string
	// Hostname is what its machine is called; "" means the builder's choice.
	Hostname string
	// Ulimits and ShmSize are those of Options.
	Ulimits []Ulimit
	ShmSize int64
}

// Ulimit is one limit of a process (setrlimit): Name as ulimits are called ("nofile"),
// ^uint64(0) for none.
type Ulimit struct {
	Name       string
	Soft, Hard uint64
}

// Mount is one thing more that a RUN sees.
type Mount struct {
	// Target is an absolute path in the container.
	Target string
	// Source is a file or directory of this machine; "" is a fresh tmpfs of at
	// most Size bytes (0: the kernel's default).
	Source   string
	Size     int64
	ReadOnly bool
}

// ExitError says that a command of the build failed.
type ExitError struct {
	Code int
	// Tail is the end of what the command printed.
	Tail string
}

// Error names the exit code.
func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// Build builds one image, or for several platforms an index, of which it returns
// the first image. Errors are a *Failure where they belong to a line.
func Build(ctx context.Context, opts Options) (image.Image, error) {
	if err := opts.complete(); err != nil {
		return image.Image{}, err
	}
	raw, err := readDockerfile(opts)
	if err != nil {
		return image.Image{}, err
	}
	file, err := opts.parse(raw, opts.Warn)
	if err != nil {
		return image.Image{}, err
	}
	if err := opts.fileEpoch(file); err != nil {
		return image.Image{}, err
	}
	if err := Clear(opts.Cache); err != nil {
		opts.Warn(Warning{Text: err.Error()})
	}
	files, err := openContext(opts.Context, opts.Dockerfile)
	if err != nil {
		return image.Image{}, err
	}
	defer files.Close()
	named, err := openNamed(opts.Contexts)
	if err != nil {
		return image.Image{}, err
	}
	defer closeNamed(named)
	content, err := opts.Images.NewBuild()
	if err != nil {
		return image.Image{}, err
	}
	img, err := buildWith(ctx, &builder{opts: opts, file: file, context: files, named: named, content: content})
	content.Close()
	if err != nil {
		return image.Image{}, err
	}
	if _, err := opts.Images.PruneMemories(image.MaxMemories, image.MaxMemoryBytes, time.Time{}); err != nil {
		return image.Image{}, err
	}
	return img, nil
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// complete fills in what was left out.
func (o *Options) complete() error {
	if o.Dockerfile == "" {
		o.Dockerfile = filepath.Join(o.Context, "Dockerfile")
		if small := filepath.Join(o.Context, "dockerfile"); !exists(o.Dockerfile) && exists(small) {
			o.Dockerfile = small // as docker has it
		}
	}
	tell := o.Progress
	var mu sync.Mutex
	o.Progress = func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if tell != nil {
			tell(e)
		}
	}
	warn := o.Warn
	o.Warn = func(w Warning) {
		mu.Lock()
		defer mu.Unlock()
		if warn != nil {
			warn(w)
		}
	}
	if len(o.Platforms) == 0 {
		o.Platforms = []string{""}
	}
	for _, tag := range o.Tags {
		if _, err := image.Normalise(tag); err != nil {
			return fmt.Errorf("tag %q: %w", tag, err)
		}
	}
	o.builtin()
	return o.epochArg()
}

// buildAll builds for each platform, and joins what comes out.
func buildAll(ctx context.Context, base *builder) (image.Image, error) {
	var parts []built
	for i, name := range base.opts.Platforms {
		p, err := parsePlatform(name)
		if err != nil {
			return image.Image{}, err
		}
		file := base.file
		if i > 0 { // variables are expanded in place: each platform has others
			if file, err = base.opts.parse(file.raw, func(Warning) {}); err != nil {
				return image.Image{}, err
			}
		}
		b := &builder{
			opts: base.opts, file: file, context: base.context, content: base.content, platform: p,
			slots: make(chan struct{}, parallelSteps), consumed: map[string]bool{},
			travel: base.travel, named: base.named,
			alone: len(base.opts.Platforms) == 1 && !base.opts.index(),
		}
		img, err := b.run(ctx)
		if err != nil {
			return image.Image{}, err
		}
		part := built{image: img, platform: p, provenance: b.provenance()}
		if b.opts.SBOM {
			if part.sbom, err = b.sbom(ctx, img, named(b.opts.Tags)); err != nil {
				return image.Image{}, fmt.Errorf("list the packages of the image: %w", err)
			}
		}
		parts = append(parts, part)
		if base.opts.OnImage != nil {
			base.opts.OnImage(p.String(), img)
		}
		if base.opts.OnResult != nil {
			base.opts.OnResult(parts[len(parts)-1].provenance)
		}
	}
	if len(parts) == 1 && !base.opts.index() {
		return parts[0].image, nil
	}
	return base.join(parts)
}
