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

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

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
	if err := g.fetch(ctx, into); err != nil {
		return "", err
	}
	return g.inside(into, false)
}

// fetch checks the repository out, with the history that it comes with.
func (g GitContext) fetch(ctx context.Context, into string) error {
	if strings.HasPrefix(g.Repository, "-") || strings.HasPrefix(g.Ref, "-") {
		return fmt.Errorf("git context %q: %w", g.Repository, image.ErrInvalid)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return errors.New("a git context needs the git program, which is not installed; fetch it elsewhere and give its directory")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, gitTimeout, fmt.Errorf("git took more than %s", gitTimeout))
	defer cancel()
	ref := g.Ref
	if ref == "" {
		ref = "HEAD"
	}
	if err := git(ctx, into, "init", "-q"); err != nil {
		return err
	}
	at := "FETCH_HEAD"
	err := git(ctx, into, "fetch", "-q", "--depth=1", "--no-tags", "--", g.Repository, ref)
	if err != nil && strings.Contains(err.Error(), "dumb http") { // such servers have files, and no part of a history
		err = git(ctx, into, "fetch", "-q", "--no-tags", "--", g.Repository, ref)
	}
	if err != nil {
		// Not every server gives a commit by its name: take all, and look there.
		if len(ref) < 7 || strings.Trim(ref, "0123456789abcdef") != "" {
			return fmt.Errorf("git repository %s: %w", g.Repository, err)
		}
		if err := git(ctx, into, "fetch", "-q", "--", g.Repository, "+refs/*:refs/remotes/all/*"); err != nil {
			return fmt.Errorf("git repository %s: %w", g.Repository, err)
		}
		at = ref
	}
	for _, args := range [][]string{{"checkout", "-q", "--detach", at}, {"submodule", "-q", "update", "--init", "--recursive", "--depth=1"}} {
		if err := git(ctx, into, args...); err != nil {
			return fmt.Errorf("git repository %s#%s: %w", g.Repository, ref, err)
		}
	}
	return nil
}

// inside finds the context's directory, which must not lead out of the repository,
// and takes the history away unless that is wanted.
func (g GitContext) inside(into string, history bool) (string, error) {
	root, err := filepath.EvalSymlinks(into)
	if err != nil {
		return "", err
	}
	if !history {
		if err := os.RemoveAll(filepath.Join(root, ".git")); err != nil {
			return "", err
		}
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
	_, err := gitSays(ctx, dir, args...)
	return err
}

// gitSays is git for what it prints.
func gitSays(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "advice.detachedHead=false", "-c", "protocol.ext.allow=never"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var words, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &words
	err := cmd.Run()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return "", cause
	}
	if err != nil {
		why := strings.TrimSpace(words.String())
		return "", fmt.Errorf("git %s: %s: %w", args[0], strings.ReplaceAll(why[max(0, len(why)-maxGitError):], "\n", "; "), err)
	}
	return strings.TrimSpace(said.String()), nil
}

// cloned is a repository that an ADD has fetched, in a directory of its own.
type cloned struct {
	tree *tree
	work *workDir
}

func (c *cloned) close() error { return errors.Join(c.tree.Close(), c.work.close()) }

// clone fetches the repository of an ADD; a checksum is the commit's, or begins it.
func (b *builder) clone(ctx context.Context, from string, cmd *instructions.AddCommand) (_ *cloned, err error) {
	g, _ := ParseGit(from)
	work, err := newWorkDir(b.opts.Cache, addDirs)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, work.close())
		}
	}()
	into := filepath.Join(work.path, "repository")
	if err := os.Mkdir(into, 0o755); err != nil { //nolint:gosec // its mode may be the destination's
		return nil, err
	}
	if err := g.fetch(ctx, into); err != nil {
		return nil, err
	}
	commit, err := gitSays(ctx, into, "rev-parse", "HEAD")
	if err != nil {
		return nil, err
	}
	if cmd.Checksum != "" && !strings.HasPrefix(commit, strings.ToLower(cmd.Checksum)) {
		return nil, fmt.Errorf("git repository %s is at commit %s, --checksum wants %s: %w", from, commit, cmd.Checksum, image.ErrInvalid)
	}
	dir, err := g.inside(into, cmd.KeepGitDir != nil && *cmd.KeepGitDir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	b.note(material{URI: "git+" + from, Digest: map[string]string{"gitCommit": commit}})
	return &cloned{tree: &tree{Root: root, name: from}, work: work}, nil
}
