package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// copyFlags are cp's.
type copyFlags struct {
	archive, follow bool
	namespace       string
}

func cpCommand(p Program, s *Settings) *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use: "cp NAME:PATH DEST|-, or cp SOURCE|- NAME:PATH", Short: "Copy files between a container and this machine", Args: cobra.ExactArgs(2),
		Long: `Copy a file or a directory out of a container on this machine, or into one, whether it runs
or not: of one that does not, volumes are left out. The container needs no program for
that. A directory is copied as one, or with /. at its end what is in it; - is a tar archive
on standard output or input.

  sampan cp web:/etc/nginx/nginx.conf .
  sampan cp site/. web:/usr/share/nginx/html`,
		RunE: func(cmd *cobra.Command, args []string) error {
			from, inFrom := containerPath(args[0])
			to, inTo := containerPath(args[1])
			if inFrom == inTo {
				return errors.New("copy from a container or to one: one of the two is NAME:PATH")
			}
			name := from.name
			if inTo {
				name = to.name
			}
			root, err := p.rootOf(cmd.Context(), s, podName{namespace: f.namespace, name: name}, inTo)
			if err != nil {
				return err
			}
			defer root.Close()
			c := copying{copyFlags: f, in: cmd.InOrStdin(), out: cmd.OutOrStdout()}
			if inFrom {
				c.source, c.target = place{root: root, path: from.path}, place{path: to.path}
			} else {
				c.source, c.target = place{path: from.path}, place{root: root, path: to.path}
			}
			return c.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&f.archive, "archive", "a", false, "keep owners")
	cmd.Flags().BoolVarP(&f.follow, "follow-link", "L", false, "of a link that is named, copy what it leads to")
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	cmd.Flags().BoolP("quiet", "q", false, "nothing: no progress is shown")
	hide(cmd.Flags(), "quiet")
	return cmd
}

// namedPath is a path as it was typed, with the container's name if it is in one.
type namedPath struct{ name, path string }

// containerPath reads NAME:PATH. As in docker, what begins with / or . is a path of
// this machine, whatever colons it has.
func containerPath(text string) (namedPath, bool) {
	name, at, ok := strings.Cut(text, ":")
	if !ok || name == "" || strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") || strings.Contains(name, "/") {
		return namedPath{path: text}, false
	}
	return namedPath{name, at}, true
}

// place is a path, in a container if root is there.
type place struct {
	root *os.File
	path string
}

// maxLooks is how often a path is looked for while somebody moves what it passes.
const maxLooks = 128

// open opens a path without reading it. In a container nothing leads out: links,
// also absolute ones and "..", are resolved as its own processes resolve them.
func (p place) open(name string, follow bool) (*os.File, error) {
	flags := uint64(unix.O_PATH | unix.O_CLOEXEC)
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	how := unix.OpenHow{Flags: flags}
	dir := unix.AT_FDCWD
	if p.root != nil {
		dir, how.Resolve = int(p.root.Fd()), unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS
		name = "/" + strings.TrimLeft(name, "/")
	}
	fd, err := unix.Openat2(dir, name, &how)
	for tries := 1; errors.Is(err, unix.EAGAIN) && tries < maxLooks; tries++ {
		fd, err = unix.Openat2(dir, name, &how) // a rename came between: the kernel asks to try again
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// handle is an open file as a path, to open it in earnest.
func handle(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// copying is one copy. Between its two ends is a tar.
type copying struct {
	copyFlags
	source, target place
	in             io.Reader
	out            io.Writer
}

func (c *copying) run(ctx context.Context) error {
	if c.target.root == nil && c.target.path == "-" {
		if terminal(c.out) {
			return errors.New("an archive would fill your terminal: send it somewhere")
		}
		return c.pack(ctx, c.out, "")
	}
	if c.source.root == nil && c.source.path == "-" {
		dir, err := c.target.open(c.target.path, true)
		if err != nil {
			return err
		}
		defer dir.Close()
		return c.unpack(ctx, dir, c.in)
	}
	dir, as, err := c.aim()
	if err != nil {
		return err
	}
	defer dir.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.pack(ctx, w, as)) }()
	defer func() { _ = r.Close() }() // a pipe's end has nothing to say
	return c.unpack(ctx, dir, r)
}

// aim opens the directory to write into, and says by which name; "." is for what is
// in the source, a directory. The rules are docker's.
func (c *copying) aim() (dir *os.File, as string, err error) {
	source, err := c.source.open(c.source.path, c.follow)
	if err != nil {
		return nil, "", err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return nil, "", err
	}
	contents := info.IsDir() && (strings.HasSuffix(c.source.path, "/.") || c.source.path == ".")
	to, err := c.target.open(c.target.path, true)
	if errors.Is(err, fs.ErrNotExist) {
		if strings.HasSuffix(c.target.path, "/") && !info.IsDir() {
			return nil, "", fmt.Errorf("%q is no directory that there is", c.target.path)
		}
		clean := path.Clean(c.target.path)
		dir, err = c.target.open(path.Dir(clean), true)
		return dir, path.Base(clean), err
	}
	if err != nil {
		return nil, "", err
	}
	there, err := to.Stat()
	switch {
	case err != nil:
	case there.IsDir() && contents:
		return to, ".", nil
	case there.IsDir():
		return to, path.Base(path.Clean("/" + c.source.path)), nil
	case info.IsDir():
		err = fmt.Errorf("%q is a file, and cannot become a directory", c.target.path)
	default:
		to.Close()
		clean := path.Clean(c.target.path)
		dir, err = c.target.open(path.Dir(clean), true)
		return dir, path.Base(clean), err
	}
	to.Close()
	return nil, "", err
}
