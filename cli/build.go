package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// buildFlags are what the flags of build say.
type buildFlags struct {
	file, target       string
	tags, args, labels []string
	noCache, quiet     bool
}

func buildCommand(p Program, s *Settings) *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use: "build -t NAME[:TAG] CONTEXT", Short: "Build an image from a Dockerfile", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runBuild(cmd, p, s, f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.tags, "tag", "t", nil, "name of the result; may be given several times")
	flags.StringVarP(&f.file, "file", "f", "", "the Dockerfile (default: CONTEXT/Dockerfile)")
	flags.StringArrayVar(&f.args, "build-arg", nil, "NAME=VALUE for an ARG")
	flags.StringArrayVar(&f.labels, "label", nil, "NAME=VALUE to put on the image")
	flags.StringVar(&f.target, "target", "", "the stage to stop at")
	flags.BoolVar(&f.noCache, "no-cache", false, "run every instruction though its layer is known")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only the image's ID")
	return cmd
}

func runBuild(cmd *cobra.Command, p Program, s *Settings, f buildFlags, context string) (failed error) {
	if len(f.tags) == 0 {
		return errors.New("an image needs a name: sampan build -t NAME " + context)
	}
	store, err := s.images()
	if err != nil {
		return err
	}
	opts := build.Options{
		Context: context, Dockerfile: f.file, Tags: f.tags, Target: f.target, NoCache: f.noCache,
		Images: store, Cache: filepath.Join(s.DataDir, "build", "cache"),
	}
	if opts.Args, err = pairs(f.args); err != nil {
		return err
	}
	if opts.Labels, err = pairs(f.labels); err != nil {
		return err
	}
	if opts.Epoch, err = epoch(); err != nil {
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
	out := cmd.OutOrStdout()
	if !f.quiet {
		opts.Progress = progressTo(out)
	}
	start := time.Now()
	img, err := build.Build(cmd.Context(), opts)
	if err != nil {
		return buildError(err)
	}
	return built(out, img, f, time.Since(start))
}

// built says what came out.
func built(out io.Writer, img image.Image, f buildFlags, took time.Duration) error {
	if f.quiet {
		_, err := fmt.Fprintln(out, img.ID)
		return err
	}
	_, err := fmt.Fprintf(out, "built %s  %s  %s  in %d ms\n", strings.Join(f.tags, ", "), shortID(img.ID), size(img.Size), took.Milliseconds())
	return err
}

// buildError adds the end of a failed command's output.
func buildError(err error) error {
	var exit *build.ExitError
	if errors.As(err, &exit) && exit.Tail != "" {
		return fmt.Errorf("%w\n%s", err, strings.TrimRight(exit.Tail, "\n"))
	}
	return err
}

// progressTo prints a line for each finished instruction, and what RUNs print.
func progressTo(out io.Writer) func(build.Event) {
	return func(e build.Event) {
		switch {
		case len(e.Output) > 0:
			for line := range bytes.Lines(e.Output) {
				fmt.Fprintf(out, "        %s\n", bytes.TrimRight(line, "\n"))
			}
		case e.Done && e.Cached:
			fmt.Fprintf(out, " cached  %d/%d  %s\n", e.Step, e.Steps, e.Text)
		case e.Done:
			fmt.Fprintf(out, "%4d ms  %d/%d  %s\n", e.Took.Milliseconds(), e.Step, e.Steps, e.Text)
		}
	}
}

// pairs reads NAME=VALUE arguments; a bare NAME takes its value from the
// environment, as docker build does.
func pairs(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if k == "" {
			return nil, fmt.Errorf("%q: want NAME=VALUE", a)
		}
		if !ok {
			v = os.Getenv(k)
		}
		out[k] = v
	}
	return out, nil
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
