package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// buildFlags are what the flags of build say.
type buildFlags struct {
	file, target, progress, iidFile, metadataFile    string
	network, provenance, call                        string
	outputs                                          []string
	tags, args, labels, platforms, secrets, agents   []string
	freshStages, contexts, annotations, hosts, allow []string
	cacheFrom, cacheTo                               []string
	attests, ulimits                                 []string
	sbom, shmSize                                    string
	noCache, quiet, pull, push, load, check          bool
	pack                                             packing
}

func buildCommand(p Program, s *Settings) *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use: "build [-t NAME[:TAG]] CONTEXT", Short: "Build an image from a Dockerfile", Args: cobra.ExactArgs(1),
		Long: `Build an image from a Dockerfile. CONTEXT is the directory that COPY and ADD read;
a git repository, as https://host/repository.git#REF:DIRECTORY; a URL of a tar of one, or
of a Dockerfile alone; or - for either on standard input.`,
		RunE: func(cmd *cobra.Command, args []string) error { return runBuild(cmd, p, s, f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.tags, "tag", "t", nil, "name of the result; may be given several times")
	flags.StringVarP(&f.file, "file", "f", "", "the Dockerfile, or its URL, or - for standard input (default: CONTEXT/Dockerfile)")
	flags.StringArrayVar(&f.args, "build-arg", nil, "NAME=VALUE for an ARG")
	flags.StringArrayVar(&f.labels, "label", nil, "NAME=VALUE to put on the image")
	flags.StringVar(&f.target, "target", "", "the stage to stop at")
	flags.StringSliceVar(&f.platforms, "platform", nil, "what the image is for, such as linux/arm64; several make an index")
	flags.StringArrayVar(&f.secrets, "secret", nil, "id=NAME[,src=FILE|,env=VARIABLE]: a secret for RUN --mount=type=secret, or for an ADD (HTTP_AUTH_TOKEN_HOST, GIT_AUTH_TOKEN.HOST)")
	flags.StringArrayVar(&f.agents, "ssh", nil, "default|ID[=SOCKET|KEY,...]: an SSH agent, or private keys, for RUN --mount=type=ssh")
	flags.StringArrayVarP(&f.outputs, "output", "o", nil, "DIRECTORY, or type=local|tar|oci|docker|image|registry,dest=PATH[,compression=gzip|zstd|uncompressed]; may be given several times (default: the images of this machine)")
	flags.BoolVar(&f.noCache, "no-cache", false, "run every instruction though its layer is known")
	flags.StringSliceVar(&f.freshStages, "no-cache-filter", nil, "stages of which every instruction is run")
	flags.BoolVar(&f.pull, "pull", false, "ask registries for newer base images")
	flags.StringVar(&f.provenance, "provenance", "false", "attach a statement of what went into the image (SLSA): true or false")
	flags.Lookup("provenance").NoOptDefVal = "true"
	flags.StringVar(&f.progress, "progress", "auto", "auto, plain, tty, quiet or rawjson")
	flags.StringVar(&f.iidFile, "iidfile", "", "file to write the image's ID to")
	flags.StringVar(&f.metadataFile, "metadata-file", "", "file to write digests and provenance to, as JSON")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only the image's ID")
	buildReachFlags(cmd, &f)
	return cmd
}

// buildReachFlags are those about what a build reaches beside its context.
func buildReachFlags(cmd *cobra.Command, f *buildFlags) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.contexts, "build-context", nil, "NAME=DIRECTORY, a git repository, docker-image://IMAGE or oci-layout://DIRECTORY:TAG, for FROM and COPY --from")
	flags.StringArrayVar(&f.cacheFrom, "cache-from", nil, "IMAGE, type=registry,ref=IMAGE or type=local,src=DIRECTORY: layers of other machines' builds")
	flags.StringArrayVar(&f.cacheTo, "cache-to", nil, "type=inline, type=registry,ref=IMAGE or type=local,dest=DIRECTORY; mode=max for all stages")
	flags.StringArrayVar(&f.annotations, "annotation", nil, "NAME=VALUE to put on the image's manifest")
	flags.StringVar(&f.network, "network", "default", "default, host or none, for RUNs that don't say otherwise")
	flags.StringArrayVar(&f.hosts, "add-host", nil, "HOST:IP: a line for /etc/hosts of RUNs")
	flags.StringArrayVar(&f.allow, "allow", nil, "security.insecure: let a RUN have this machine; device, or device=VENDOR/CLASS=NAME: let RUN --device have all, or that one")
	flags.BoolVar(&f.push, "push", false, "send the result to the registries in its names")
	flags.BoolVar(&f.load, "load", false, "keep the result among this machine's images, as is always done")
	flags.StringArrayVar(&f.ulimits, "ulimit", nil, "NAME=SOFT[:HARD]: a limit of RUNs' processes, such as nofile=1024:4096")
	flags.StringVar(&f.shmSize, "shm-size", "", "size of RUNs' /dev/shm, such as 256m (default 64m)")
	flags.StringArrayVar(&f.attests, "attest", nil, "type=provenance[,mode=min|max|,disabled=true] or type=sbom: --provenance and --sbom in other words")
	flags.StringVar(&f.sbom, "sbom", "false", "attach a list of the packages in the image (SPDX): those of dpkg, of apk, and of Go programs")
	flags.Lookup("sbom").NoOptDefVal = "true"
	idleFlags(cmd)
	flags.BoolVar(&f.check, "check", false, "only say what is doubtful in the Dockerfile")
	flags.StringVar(&f.call, "call", "build", "build, check, outline or targets")
}

func runBuild(cmd *cobra.Command, p Program, s *Settings, f buildFlags, from string) (failed error) {
	outs, err := parseOutputs(&f, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	sayIdle(cmd)
	store, err := s.images()
	if err != nil {
		return err
	}
	opts, err := buildOptions(s, f)
	if err != nil {
		return err
	}
	opts.Images = store
	undoAgents, err := buildAgents(&opts, f)
	defer func() { failed = errors.Join(failed, undoAgents()) }()
	if err != nil {
		return err
	}
	undo, err := buildInput(cmd, &opts, f, from)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, undo()) }()
	if f.check || f.call != "build" {
		return examine(cmd.OutOrStdout(), f, opts)
	}
	leave, err := namedContexts(cmd.Context(), &opts, f.contexts)
	defer func() { failed = errors.Join(failed, leave()) }()
	if err != nil {
		return err
	}
	if p.Runner != nil {
		runner, end, err := p.Runner(*s)
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, end()) }()
		opts.Runner = runner
	}
	w := buildOut(cmd, &opts, &f, outs)
	var records []build.Provenance
	opts.OnResult = func(r build.Provenance) { records = append(records, r) }
	var parts []build.Part
	opts.OnImage = func(platform string, img image.Image) {
		parts = append(parts, build.Part{Image: img, Dir: build.PlatformDir(platform)})
	}
	start := time.Now()
	img, err := build.Build(cmd.Context(), opts)
	if err != nil {
		return buildError(err)
	}
	for _, out := range outs {
		if err := out.write(cmd.Context(), store, img, opts, parts); err != nil {
			return err
		}
	}
	if err := buildFiles(f, img, records); err != nil {
		return err
	}
	return built(w, img, f, time.Since(start))
}

// buildOut is where a build says what it does, and what has come of it.
func buildOut(cmd *cobra.Command, opts *build.Options, f *buildFlags, outs []buildOutput) io.Writer {
	f.quiet = f.quiet || f.progress == "quiet"
	w := cmd.OutOrStdout()
	if slices.ContainsFunc(outs, buildOutput.streams) {
		w = cmd.ErrOrStderr()
	}
	if f.progress == "rawjson" {
		raw := newRawProgress(cmd.ErrOrStderr())
		opts.Progress, opts.Warn = raw.event, raw.warning
	} else if !f.quiet {
		show := &buildProgress{out: w, redraw: f.progress == "tty" || f.progress == "auto" && terminal(w)}
		opts.Progress, opts.Warn = show.event, show.warning
	}
	return w
}

// buildOptions reads what the flags say.
func buildOptions(s *Settings, f buildFlags) (opts build.Options, err error) {
	opts = build.Options{
		Dockerfile: f.file, Tags: f.tags, Target: f.target, NoCache: f.noCache, NoCacheStages: f.freshStages,
		Pull: f.pull, Platforms: f.platforms, NetworkNone: f.network == "none",
		Cache: filepath.Join(s.DataDir, "build", "cache"), Pulls: s.transfers(),
	}
	for _, flag := range []struct {
		name, value string
		want        []string
	}{
		{"progress", f.progress, []string{"auto", "plain", "tty", "quiet", "rawjson"}},
		{"network", f.network, []string{"default", "host", "none"}},
		{"call", f.call, []string{"build", "check", "outline", "targets"}},
	} {
		if !slices.Contains(flag.want, flag.value) {
			return opts, fmt.Errorf("--%s=%s: want one of %s", flag.name, flag.value, strings.Join(flag.want, ", "))
		}
	}
	if err = attestations(&opts, f); err != nil {
		return opts, err
	}
	opts.Compression, opts.Recompress, opts.DockerTypes = f.pack.compression, f.pack.force, f.pack.docker
	if err = buildLimits(&opts, f); err != nil {
		return opts, err
	}
	for _, what := range f.allow {
		kind, device, _ := strings.Cut(what, "=")
		switch kind {
		case "security.insecure":
			opts.Insecure = true
		case "device":
			opts.AllowDevices = append(opts.AllowDevices, device)
		case "network.host": // RUNs have it anyhow
		default:
			return opts, fmt.Errorf("--allow=%s: want security.insecure, network.host or device[=NAME]", what)
		}
	}
	if opts.Hosts, err = hostLines(f.hosts); err != nil {
		return opts, err
	}
	if opts.CacheFrom, err = cachePlaces("--cache-from", f.cacheFrom); err != nil {
		return opts, err
	}
	if opts.CacheTo, err = cachePlaces("--cache-to", f.cacheTo); err != nil {
		return opts, err
	}
	if opts.Annotations, err = manifestNotes(f.annotations); err != nil {
		return opts, err
	}
	if opts.Args, err = pairs(f.args); err != nil {
		return opts, err
	}
	if opts.Labels, err = pairs(f.labels); err != nil {
		return opts, err
	}
	if opts.Secrets, err = secrets(f.secrets); err != nil {
		return opts, err
	}
	opts.Epoch, err = epoch()
	return opts, err
}

// buildAgents finds or makes the SSH agents that a build may speak to.
func buildAgents(opts *build.Options, f buildFlags) (undo func() error, err error) {
	opts.Agents, undo, err = agents(f.agents)
	return undo, err
}
