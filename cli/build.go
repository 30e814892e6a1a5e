package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// buildFlags are what the flags of build say.
type buildFlags struct {
	file, target, output, progress, iidFile, metadataFile string
	tags, args, labels, platforms, secrets, agents        []string
	freshStages                                           []string
	noCache, quiet, pull, provenance                      bool
}

func buildCommand(p Program, s *Settings) *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use: "build [-t NAME[:TAG]] CONTEXT", Short: "Build an image from a Dockerfile", Args: cobra.ExactArgs(1),
		Long: `Build an image from a Dockerfile. CONTEXT is the directory that COPY and ADD read;
a git repository, as https://host/repository.git#REF:DIRECTORY; or - for a tar of
one, or a Dockerfile alone, on standard input.`,
		RunE: func(cmd *cobra.Command, args []string) error { return runBuild(cmd, p, s, f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.tags, "tag", "t", nil, "name of the result; may be given several times")
	flags.StringVarP(&f.file, "file", "f", "", "the Dockerfile, - for standard input (default: CONTEXT/Dockerfile)")
	flags.StringArrayVar(&f.args, "build-arg", nil, "NAME=VALUE for an ARG")
	flags.StringArrayVar(&f.labels, "label", nil, "NAME=VALUE to put on the image")
	flags.StringVar(&f.target, "target", "", "the stage to stop at")
	flags.StringSliceVar(&f.platforms, "platform", nil, "what the image is for, such as linux/arm64; several make an index")
	flags.StringArrayVar(&f.secrets, "secret", nil, "id=NAME[,src=FILE|,env=VARIABLE]: a secret for RUN --mount=type=secret")
	flags.StringArrayVar(&f.agents, "ssh", nil, "default|ID[=SOCKET]: an SSH agent for RUN --mount=type=ssh")
	flags.StringVarP(&f.output, "output", "o", "", "DIRECTORY, or type=local|tar|oci|docker|registry,dest=PATH (default: the images of this machine)")
	flags.BoolVar(&f.noCache, "no-cache", false, "run every instruction though its layer is known")
	flags.StringSliceVar(&f.freshStages, "no-cache-filter", nil, "stages of which every instruction is run")
	flags.BoolVar(&f.pull, "pull", false, "ask registries for newer base images")
	flags.BoolVar(&f.provenance, "provenance", false, "attach a statement of what went into the image (SLSA)")
	flags.StringVar(&f.progress, "progress", "auto", "auto, plain, tty or quiet")
	flags.StringVar(&f.iidFile, "iidfile", "", "file to write the image's ID to")
	flags.StringVar(&f.metadataFile, "metadata-file", "", "file to write digests and provenance to, as JSON")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only the image's ID")
	return cmd
}

func runBuild(cmd *cobra.Command, p Program, s *Settings, f buildFlags, from string) (failed error) {
	out, err := parseOutput(f.output, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	store, err := s.images()
	if err != nil {
		return err
	}
	opts, err := buildOptions(s, f)
	if err != nil {
		return err
	}
	opts.Images = store
	undo, err := buildInput(cmd, &opts, f, from)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, undo()) }()
	if p.Runner != nil {
		runner, end, err := p.Runner(*s)
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, end()) }()
		opts.Runner = runner
	}
	f.quiet = f.quiet || f.progress == "quiet"
	w := cmd.OutOrStdout()
	if out.kind != "" && out.dest == "-" {
		w = cmd.ErrOrStderr()
	}
	if !f.quiet {
		show := &buildProgress{out: w, redraw: f.progress == "tty" || f.progress == "auto" && terminal(w)}
		opts.Progress, opts.Warn = show.event, show.warning
	}
	var records []build.Provenance
	opts.OnResult = func(r build.Provenance) { records = append(records, r) }
	start := time.Now()
	img, err := build.Build(cmd.Context(), opts)
	if err != nil {
		return buildError(err)
	}
	if err := out.write(cmd.Context(), store, img, opts); err != nil {
		return err
	}
	if err := buildFiles(f, img, records); err != nil {
		return err
	}
	return built(w, img, f, time.Since(start))
}

// buildOptions reads what the flags say.
func buildOptions(s *Settings, f buildFlags) (opts build.Options, err error) {
	opts = build.Options{
		Dockerfile: f.file, Tags: f.tags, Target: f.target, NoCache: f.noCache, NoCacheStages: f.freshStages,
		Pull: f.pull, Platforms: f.platforms, Provenance: f.provenance,
		Cache: filepath.Join(s.DataDir, "build", "cache"), Pulls: s.transfers(),
	}
	if !slices.Contains([]string{"auto", "plain", "tty", "quiet"}, f.progress) {
		return opts, fmt.Errorf("--progress=%s: want auto, plain, tty or quiet", f.progress)
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
	if opts.Agents, err = agents(f.agents); err != nil {
		return opts, err
	}
	opts.Epoch, err = epoch()
	return opts, err
}

// buildInput finds context and Dockerfile: directories and files, or one of them
// on standard input.
func buildInput(cmd *cobra.Command, opts *build.Options, f buildFlags, from string) (undo func() error, err error) {
	undo = func() error { return nil }
	if g, ok := build.ParseGit(from); ok {
		return gitInput(cmd, opts, f, g)
	}
	if u, err := url.Parse(from); err == nil && u.Host != "" {
		return undo, fmt.Errorf("context %q: only git repositories (.git) are fetched: curl -L %s | sampan build -", from, from)
	}
	if from == "-" && f.file == "-" {
		return undo, errors.New("standard input cannot be the context and the Dockerfile")
	}
	opts.Context = from
	if f.file == "-" {
		raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), build.MaxDockerfile+1))
		if err != nil {
			return undo, err
		}
		opts.Content, opts.Dockerfile = raw, "Dockerfile"
		return undo, nil
	}
	if from != "-" {
		return undo, nil
	}
	dir, err := os.MkdirTemp("", "sampan-context-*")
	if err != nil {
		return undo, err
	}
	undo = func() error { return os.RemoveAll(dir) }
	raw, err := build.ReadContext(cmd.Context(), cmd.InOrStdin(), dir)
	if err != nil {
		return undo, errors.Join(err, undo())
	}
	opts.Context = dir
	if raw != nil {
		opts.Content, opts.Dockerfile = raw, "Dockerfile"
	} else if f.file != "" {
		opts.Dockerfile = filepath.Join(dir, filepath.Clean("/"+f.file))
	}
	return undo, nil
}

// gitInput fetches a repository for the time of the build.
func gitInput(cmd *cobra.Command, opts *build.Options, f buildFlags, g build.GitContext) (undo func() error, err error) {
	dir, err := os.MkdirTemp("", "sampan-context-*")
	if err != nil {
		return nil, err
	}
	undo = func() error { return os.RemoveAll(dir) }
	if opts.Context, err = g.Checkout(cmd.Context(), dir); err != nil {
		return undo, errors.Join(err, undo())
	}
	if f.file == "-" {
		opts.Content, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), build.MaxDockerfile+1))
		opts.Dockerfile = "Dockerfile"
		return undo, err
	}
	if f.file != "" {
		opts.Dockerfile = filepath.Join(opts.Context, filepath.Clean("/"+f.file))
	}
	return undo, nil
}

// buildFiles writes --iidfile and --metadata-file.
func buildFiles(f buildFlags, img image.Image, records []build.Provenance) error {
	if f.iidFile != "" {
		if err := atomicfile.Write(f.iidFile, []byte(img.ID), 0o644); err != nil {
			return err
		}
	}
	if f.metadataFile == "" {
		return nil
	}
	d := img.Manifest
	if img.Index != "" {
		d = img.Index
	}
	meta := map[string]any{"containerimage.digest": d, "containerimage.config.digest": img.ID}
	if len(f.tags) > 0 {
		meta["image.name"] = strings.Join(f.tags, ",")
	}
	if len(records) == 1 {
		meta["buildx.build.provenance"] = records[0]
	} else {
		for i, r := range records {
			meta["buildx.build.provenance/"+f.platforms[i]] = r
		}
	}
	return atomicfile.WriteJSON(f.metadataFile, meta)
}

// built says what came out.
func built(out io.Writer, img image.Image, f buildFlags, took time.Duration) error {
	if f.quiet {
		_, err := fmt.Fprintln(out, img.ID)
		return err
	}
	name := strings.Join(f.tags, ", ")
	if name == "" {
		name = "<none>"
	}
	_, err := fmt.Fprintf(out, "built %s  %s  %s  in %d ms\n", name, shortID(img.ID), size(img.Size), took.Milliseconds())
	return err
}

// buildError adds the lines of the Dockerfile and the end of a failed command's
// output.
func buildError(err error) error {
	var place *build.Failure
	text := ""
	if errors.As(err, &place) {
		text = "\n" + place.Excerpt()
	}
	var exit *build.ExitError
	if errors.As(err, &exit) && exit.Tail != "" {
		text += "\n" + strings.TrimRight(exit.Tail, "\n")
	}
	if text == "" {
		return err
	}
	return fmt.Errorf("%w%s", err, strings.TrimRight(text, "\n"))
}

// pairs reads NAME=VALUE arguments; a bare NAME takes its value from the
// environment, as docker build does, and is not given when it has none there.
func pairs(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if k == "" {
			return nil, fmt.Errorf("%q: want NAME=VALUE", a)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		out[k] = v
	}
	return out, nil
}

// secrets reads --secret id=NAME[,src=FILE|,env=VARIABLE][,type=file|env].
func secrets(args []string) (map[string]build.Secret, error) {
	all := map[string]build.Secret{}
	for _, a := range args {
		fields, err := fieldsOf(a, "id", "src", "source", "env", "type")
		if err != nil || fields["id"] == "" {
			return nil, fmt.Errorf("--secret %q: want id=NAME[,src=FILE|,env=VARIABLE]: %w", a, errors.Join(err))
		}
		id, file, variable := fields["id"], fields["src"]+fields["source"], fields["env"]
		if fields["type"] == "env" && variable == "" {
			variable = file
			file = ""
		}
		if file == "" && variable == "" {
			if _, ok := os.LookupEnv(id); ok && fields["type"] != "file" {
				variable = id
			} else {
				file = id
			}
		}
		if variable == "" {
			all[id] = build.Secret{File: file}
			continue
		}
		value, ok := os.LookupEnv(variable)
		if !ok {
			return nil, fmt.Errorf("--secret %q: the environment has no %s", a, variable)
		}
		all[id] = build.Secret{Value: []byte(value)}
	}
	return all, nil
}

// agents reads --ssh default|ID[=SOCKET]; the default is $SSH_AUTH_SOCK.
func agents(args []string) (map[string]string, error) {
	all := map[string]string{}
	for _, a := range args {
		id, socket, ok := strings.Cut(a, "=")
		if !ok {
			socket = os.Getenv("SSH_AUTH_SOCK")
		}
		if socket == "" {
			return nil, fmt.Errorf("--ssh %s: no agent: SSH_AUTH_SOCK is not set", a)
		}
		info, err := os.Stat(socket)
		if err != nil {
			return nil, fmt.Errorf("--ssh %s: %w", a, err)
		}
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("--ssh %s: %q is not the socket of an agent; keys themselves are not supported: load them into an agent with ssh-add", a, socket)
		}
		all[id] = socket
	}
	return all, nil
}

// fieldsOf reads "a=1,b=2" with known names only.
func fieldsOf(text string, known ...string) (map[string]string, error) {
	fields := map[string]string{}
	for _, part := range strings.Split(text, ",") {
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want NAME=VALUE", part)
		}
		found := false
		for _, name := range known {
			found = found || name == k
		}
		if !found {
			return nil, fmt.Errorf("%q is unknown; known are %s", k, strings.Join(known, ", "))
		}
		fields[k] = v
	}
	return fields, nil
}

// epoch reads SOURCE_DATE_EPOCH (reproducible-builds.org).
func epoch() (*time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return nil, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970", text)
	}
	t := time.Unix(seconds, 0)
	return &t, nil
}

// buildOutput is where a build's result goes beside the images.
type buildOutput struct{ kind, dest string }

// parseOutput reads --output.
func parseOutput(text string, stdout io.Writer) (buildOutput, error) {
	o := buildOutput{kind: "local", dest: text}
	switch {
	case text == "":
		return buildOutput{}, nil
	case text == "-":
		o.kind = "tar"
	case strings.Contains(text, "="):
		fields, err := fieldsOf(text, "type", "dest", "push", "name")
		if err != nil {
			return o, fmt.Errorf("--output %q: %w", text, err)
		}
		o.kind, o.dest = fields["type"], fields["dest"]
		if o.kind == "image" && fields["push"] == "true" {
			o.kind = "registry"
		}
		if o.dest == "" {
			o.dest = "-"
		}
	}
	switch o.kind {
	case "image":
		return buildOutput{}, nil
	case "registry":
		return o, nil
	case "local":
		if o.dest == "-" {
			return o, fmt.Errorf("--output %q: say where with dest=DIRECTORY", text)
		}
		return o, nil
	case "tar", "oci", "docker":
		if o.dest == "-" && terminal(stdout) {
			return o, errors.New("an archive would fill your terminal: say where it goes with dest=FILE")
		}
		return o, nil
	}
	return o, fmt.Errorf("--output %q: want a directory, or type=local|tar|oci|docker|registry", text)
}

// write brings the result where it is wanted.
func (o buildOutput) write(ctx context.Context, store *image.Store, img image.Image, opts build.Options) error {
	refs := opts.Tags
	if len(refs) == 0 {
		refs = []string{img.ID}
	}
	switch o.kind {
	case "":
		return nil
	case "local":
		return build.WriteFiles(ctx, store, img, opts.Epoch, o.dest)
	case "registry":
		for _, tag := range opts.Tags {
			if _, err := store.Push(ctx, tag, opts.Pulls); err != nil {
				return err
			}
		}
		return nil
	}
	return writeTo(o.dest, os.Stdout, func(w io.Writer) error {
		switch o.kind {
		case "tar":
			return build.WriteTar(ctx, store, img, opts.Epoch, w)
		case "oci":
			return store.SaveLayout(w, refs...)
		}
		return store.Save(w, refs...)
	})
}
