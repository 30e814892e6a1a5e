package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// buildInput finds context and Dockerfile: directories and files, or one of them
// on standard input.
func buildInput(cmd *cobra.Command, opts *build.Options, f buildFlags, from string) (undo func() error, err error) {
	undo = func() error { return nil }
	if g, ok := build.ParseGit(from); ok {
		return gitInput(cmd, opts, f, g)
	}
	if from == "-" && f.file == "-" {
		return undo, errors.New("standard input cannot be the context and the Dockerfile")
	}
	opts.Context = from
	apart, err := dockerfileApart(cmd, opts, f)
	if err != nil || from != "-" && !fetchable(from) {
		return undo, err
	}
	dir, err := os.MkdirTemp("", "sampan-context-*")
	if err != nil {
		return undo, err
	}
	undo = func() error { return os.RemoveAll(dir) }
	var raw []byte
	if from == "-" {
		raw, err = build.ReadContext(cmd.Context(), cmd.InOrStdin(), dir)
	} else {
		raw, err = build.FetchContext(cmd.Context(), from, dir)
	}
	if err != nil {
		return undo, errors.Join(err, undo())
	}
	opts.Context = dir
	switch {
	case apart:
	case raw != nil:
		opts.Content, opts.Dockerfile = raw, "Dockerfile"
	case f.file != "":
		opts.Dockerfile = filepath.Join(dir, filepath.Clean("/"+f.file))
	}
	return undo, nil
}

// fetchable says whether a text is the URL of something to be fetched.
func fetchable(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// dockerfileApart reads a Dockerfile that is in no context: on standard input, or at a URL.
func dockerfileApart(cmd *cobra.Command, opts *build.Options, f buildFlags) (bool, error) {
	var raw []byte
	var err error
	switch {
	case f.file == "-":
		raw, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), build.MaxDockerfile+1))
	case fetchable(f.file):
		raw, err = build.FetchDockerfile(cmd.Context(), f.file)
	default:
		return false, nil
	}
	opts.Content, opts.Dockerfile = raw, "Dockerfile"
	return true, err
}

// gitInput fetches a repository for the time of the build.
func gitInput(cmd *cobra.Command, opts *build.Options, f buildFlags, g build.GitContext) (undo func() error, err error) {
	dir, err := os.MkdirTemp("", "sampan-context-*")
	if err != nil {
		return nil, err
	}
	undo = func() error { return os.RemoveAll(dir) }
	if keep, err := strconv.ParseBool(opts.Args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); err == nil && keep {
		g.KeepHistory = true
	}
	if opts.Context, err = g.Checkout(cmd.Context(), dir); err != nil {
		return undo, errors.Join(err, undo())
	}
	apart, err := dockerfileApart(cmd, opts, f)
	if err != nil {
		return undo, errors.Join(err, undo())
	}
	if apart {
		return undo, nil
	}
	if f.file != "" {
		opts.Dockerfile = filepath.Join(opts.Context, filepath.Clean("/"+f.file))
	}
	return undo, nil
}

// imageContext and layoutContext are how a named context says that it is an image, of a
// registry or of this machine, or one in the directory of an OCI layout.
const (
	imageContext  = "docker-image://"
	layoutContext = "oci-layout://"
)

// layoutImage takes in the image that PATH[:TAG] or PATH@DIGEST names, and gives its ID.
func layoutImage(ctx context.Context, images *image.Store, text string) (string, error) {
	dir, which, _ := strings.Cut(text, "@")
	if slash := strings.LastIndexByte(dir, '/'); which == "" {
		if colon := strings.LastIndexByte(dir, ':'); colon > slash {
			dir, which = dir[:colon], dir[colon+1:]
		}
	}
	img, err := images.Adopt(ctx, dir, which)
	return img.ID, err
}

// namedContexts reads --build-context; repositories are fetched for the time of the
// build.
func namedContexts(ctx context.Context, opts *build.Options, args []string) (undo func() error, err error) {
	var dirs []string
	undo = func() error {
		var errs []error
		for _, d := range dirs {
			errs = append(errs, os.RemoveAll(d))
		}
		return errors.Join(errs...)
	}
	opts.Contexts = map[string]build.NamedContext{}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" || value == "" {
			return undo, fmt.Errorf("--build-context %q: want NAME=DIRECTORY, NAME=REPOSITORY.git, NAME=URL of a tar, NAME=docker-image://IMAGE, or NAME=oci-layout://DIRECTORY:TAG", a)
		}
		c, dir, err := contextAt(ctx, opts.Images, value)
		if dir != "" {
			dirs = append(dirs, dir)
		}
		if err != nil {
			return undo, fmt.Errorf("--build-context %q: %w", a, err)
		}
		opts.Contexts[name] = c
	}
	return undo, nil
}

// contextAt is what one of them means. What is fetched for it is in dir, also after an
// error.
func contextAt(ctx context.Context, images *image.Store, value string) (c build.NamedContext, dir string, err error) {
	if ref, ok := strings.CutPrefix(value, imageContext); ok {
		return build.NamedContext{Image: ref}, "", nil
	}
	if at, ok := strings.CutPrefix(value, layoutContext); ok {
		c.Image, err = layoutImage(ctx, images, at)
		return c, "", err
	}
	g, ok := build.ParseGit(value)
	if !ok && !fetchable(value) {
		return build.NamedContext{Dir: value}, "", nil
	}
	if dir, err = os.MkdirTemp("", "sampan-context-*"); err != nil {
		return c, "", err
	}
	if c.Dir = dir; ok {
		c.Dir, err = g.Checkout(ctx, dir)
	} else {
		err = fetchNamed(ctx, value, dir)
	}
	return c, dir, err
}

// fetchNamed brings an archive's files.
func fetchNamed(ctx context.Context, from, dir string) error {
	raw, err := build.FetchContext(ctx, from, dir)
	if err == nil && raw != nil {
		err = errors.New("what is there is no tar")
	}
	return err
}
