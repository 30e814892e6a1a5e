package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of a context from a git repository.
const (
	gitTimeout = 15 * time.Minute
	// maxGitError is how much of git's words an error has.
	maxGitError = 2 << 10
)

// GitContext is a build context in a git repository, as docker names it:
// REPOSITORY#REF:DIRECTORY, both optional.
type GitContext struct{ Repository, Ref, Dir string }

// ParseGit reads a context's address; ok is false when it is not a repository's.
func ParseGit(text string) (g GitContext, ok bool) {
	where, fragment, _ := strings.Cut(text, "#")
	scheme, rest, isURL := strings.Cut(where, "://")
	switch {
	case !isURL:
		ok = strings.HasPrefix(where, "git@") && strings.Contains(where, ":")
	case scheme == "git" || scheme == "ssh" || scheme == "git+ssh":
		ok = true
	case scheme == "https" || scheme == "http" || scheme == "file":
		ok = strings.HasSuffix(rest, ".git")
	}
	g.Repository = where
	g.Ref, g.Dir, _ = strings.Cut(fragment, ":")
	return g, ok
}

// Checkout brings the repository's files, without its history, into an empty
// directory, and returns the directory of the context in it. It wants the git
// program, which asks nothing of a person here.
func (g GitContext) Checkout(ctx context.Context, into string) (string, error) {
	if strings.HasPrefix(g.Repository, "-") || strings.HasPrefix(g.Ref, "-") {
		return "", fmt.Errorf("git context %q: %w", g.Repository, image.ErrInvalid)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return "", errors.New("a git context needs the git program, which is not installed; fetch it elsewhere and give its directory")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, gitTimeout, fmt.Errorf("git took more than %s", gitTimeout))
	defer cancel()
	ref := g.Ref
	if ref == "" {
		ref = "HEAD"
	}
	if err := git(ctx, into, "init", "-q"); err != nil {
		return "", err
	}
	at := "FETCH_HEAD"
	if err := git(ctx, into, "fetch", "-q", "--depth=1", "--no-tags", "--", g.Repository, ref); err != nil {
		// Not every server gives a commit by its name: take all, and look there.
		if len(ref) < 7 || strings.Trim(ref, "0123456789abcdef") != "" {
			return "", fmt.Errorf("git context %s: %w", g.Repository, err)
		}
		if err := git(ctx, into, "fetch", "-q", "--", g.Repository, "+refs/*:refs/remotes/all/*"); err != nil {
			return "", fmt.Errorf("git context %s: %w", g.Repository, err)
		}
		at = ref
	}
	for _, args := range [][]string{{"checkout", "-q", "--detach", at}, {"submodule", "-q", "update", "--init", "--recursive", "--depth=1"}} {
		if err := git(ctx, into, args...); err != nil {
			return "", fmt.Errorf("git context %s#%s: %w", g.Repository, ref, err)
		}
	}
	return g.inside(into)
}

// inside finds the context's directory, which must not lead out of the repository,
// and takes the history away.
func (g GitContext) inside(into string) (string, error) {
	root, err := filepath.EvalSymlinks(into)
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(root, ".git")); err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Clean("/"+g.Dir)))
	if err != nil {
		return "", fmt.Errorf("directory %q of %s: %w", g.Dir, g.Repository, errors.Join(image.ErrNotFound, err))
	}
	if dir != root && !strings.HasPrefix(dir, root+string(filepath.Separator)) {
		return "", fmt.Errorf("directory %q of %s leads out of it: %w", g.Dir, g.Repository, image.ErrInvalid)
	}
	return dir, nil
}

// git runs git in a directory.
func git(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "advice.detachedHead=false", "-c", "protocol.ext.allow=never"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var words bytes.Buffer
	cmd.Stderr = &words
	err := cmd.Run()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil {
		said := strings.TrimSpace(words.String())
		return fmt.Errorf("git %s: %s: %w", args[0], strings.ReplaceAll(said[max(0, len(said)-maxGitError):], "\n", "; "), err)
	}
	return nil
}
