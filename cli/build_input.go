package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
)

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

// imageContext is how a named context says that it is an image.
const imageContext = "docker-image://"

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
			return undo, fmt.Errorf("--build-context %q: want NAME=DIRECTORY, NAME=REPOSITORY.git or NAME=docker-image://IMAGE", a)
		}
		c := build.NamedContext{Dir: value}
		if ref, ok := strings.CutPrefix(value, imageContext); ok {
			c = build.NamedContext{Image: ref}
		} else if g, ok := build.ParseGit(value); ok {
			dir, err := os.MkdirTemp("", "sampan-context-*")
			if err != nil {
				return undo, err
			}
			dirs = append(dirs, dir)
			if c.Dir, err = g.Checkout(ctx, dir); err != nil {
				return undo, err
			}
		}
		opts.Contexts[name] = c
	}
	return undo, nil
}
