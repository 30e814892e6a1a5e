package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
// REPOSITORY#REF:DIRECTORY, both optional, or REPOSITORY?ref=REF&subdir=DIRECTORY and
// more such.
type GitContext struct {
	Repository, Ref, Dir string
	// Commit is what Ref must be at; it may be a commit's beginning.
	Commit string
	// KeepHistory leaves .git where it is. Bare leaves submodules out.
	KeepHistory, Bare bool
	// wrong is what is wrong with the address.
	wrong string
}

// ParseGit reads a context's address; ok is false when it is not a repository's.
func ParseGit(text string) (g GitContext, ok bool) {
	if strings.HasPrefix(text, "github.com/") {
		text = "https://" + text
		if where, _, _ := strings.Cut(text, "#"); !strings.HasSuffix(where, ".git") {
			text = where + ".git" + strings.TrimPrefix(text, where)
		}
	}
	where, fragment, _ := strings.Cut(text, "#")
	where, query, _ := strings.Cut(where, "?")
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
	if ok && query != "" {
		g.query(query)
	}
	return g, ok
}

// query reads what stands after a ? in an address, by BuildKit's names.
func (g *GitContext) query(text string) {
	values, err := url.ParseQuery(text)
	if err != nil {
		g.wrong = err.Error()
		return
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name][0]
		into, prefix := &g.Ref, ""
		switch name {
		case "ref":
		case "tag":
			prefix = "refs/tags/"
		case "branch":
			prefix = "refs/heads/"
		case "subdir":
			into = &g.Dir
		case "checksum", "commit":
			into = &g.Commit
		case "keep-git-dir":
			g.KeepHistory = value == "" || yes(value)
			continue
		case "submodules":
			g.Bare = value != "" && !yes(value)
			continue
		default:
			g.wrong = fmt.Sprintf("unexpected query %q", name)
			return
		}
		if value = prefix + strings.TrimPrefix(value, prefix); *into != "" && *into != value {
			g.wrong = fmt.Sprintf("%s conflicts: %q vs %q", name, *into, value)
			return
		}
		*into = value
	}
}

// Checkout brings the repository's files, without its history, into an empty
// directory, and returns the directory of the context in it. It wants the git
// program, which asks nothing of a person here.
func (g GitContext) Checkout(ctx context.Context, into string) (string, error) {
	if err := g.fetch(ctx, into); err != nil {
		return "", err
	}
	return g.inside(into, g.KeepHistory)
}

// fetch checks the repository out, with the history that it comes with.
func (g GitContext) fetch(ctx context.Context, into string, env ...string) error {
	if g.wrong != "" {
		return fmt.Errorf("git repository %s: %s: %w", g.Repository, g.wrong, image.ErrInvalid)
	}
	git := func(ctx context.Context, dir string, args ...string) error {
		_, err := gitSays(ctx, dir, env, args...)
		return err
	}
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
	steps := [][]string{{"checkout", "-q", "--detach", at}, {"submodule", "-q", "update", "--init", "--recursive", "--depth=1"}}
	if g.Bare {
		steps = steps[:1]
	}
	for _, args := range steps {
		if err := git(ctx, into, args...); err != nil {
			return fmt.Errorf("git repository %s#%s: %w", g.Repository, ref, err)
		}
	}
	if g.Commit == "" {
		return nil
	}
	commit, err := gitSays(ctx, into, nil, "rev-parse", "HEAD")
	if err == nil && !strings.HasPrefix(commit, strings.ToLower(g.Commit)) {
		err = fmt.Errorf("git repository %s is at commit %s, %s is wanted: %w", g.Repository, commit, g.Commit, image.ErrInvalid)
	}
	return err
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

// gitSays runs git in a directory, with env besides, for what it prints.
func gitSays(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "advice.detachedHead=false", "-c", "protocol.ext.allow=never"}, args...)...)
	cmd.Env = append(append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"), env...)
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
	env, err := b.gitAccess(g)
	if err != nil {
		return nil, err
	}
	if err := g.fetch(ctx, into, env...); err != nil {
		return nil, err
	}
	commit, err := gitSays(ctx, into, nil, "rev-parse", "HEAD")
	if err != nil {
		return nil, err
	}
	if cmd.Checksum != "" && !strings.HasPrefix(commit, strings.ToLower(cmd.Checksum)) {
		return nil, fmt.Errorf("git repository %s is at commit %s, --checksum wants %s: %w", from, commit, cmd.Checksum, image.ErrInvalid)
	}
	dir, err := g.inside(into, g.KeepHistory || cmd.KeepGitDir != nil && *cmd.KeepGitDir)
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
