package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// pack writes the source as a tar whose names begin with as; "" is its own name.
func (c *copying) pack(ctx context.Context, to io.Writer, as string) error {
	source, err := c.source.open(c.source.path, c.follow)
	if err != nil {
		return err
	}
	defer source.Close()
	if as == "" {
		as = path.Base(path.Clean("/" + c.source.path))
	}
	info, err := source.Stat()
	if err != nil {
		return err
	}
	t := tar.NewWriter(to)
	if !info.IsDir() {
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			buf := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(int(source.Fd()), "", buf)
			if err != nil {
				return fmt.Errorf("read link %q: %w", c.source.path, err)
			}
			link = string(buf[:n])
		}
		err = add(t, info, as, link, func() (*os.File, error) { return os.Open(handle(source)) })
		return errors.Join(err, t.Close())
	}
	root, err := os.OpenRoot(handle(source))
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		info, err := root.Lstat(name)
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = root.Readlink(name); err != nil {
				return err
			}
		}
		return add(t, info, path.Join(as, name), link, func() (*os.File, error) { return openSame(root, name, info.Mode().Type()) })
	})
	return errors.Join(err, t.Close())
}

// add writes one file, directory or link; sockets have no place in a tar. open is for
// files and directories.
func add(t *tar.Writer, info fs.FileInfo, as, link string, open func() (*os.File, error)) error {
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Uname, h.Gname = "", "" // the host's names for the container's numbers
	if h.Name = as; info.IsDir() {
		h.Name += "/"
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return t.WriteHeader(h)
	}
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	if h.PAXRecords, err = attributesOf(f); err != nil {
		return err
	}
	if err := t.WriteHeader(h); err != nil || info.IsDir() {
		return err
	}
	_, err = io.CopyN(t, f, h.Size)
	return err
}

// openSame opens what was a regular file or a directory. A container that runs may have put
// something else in its place, a pipe whose other end nobody opens.
func openSame(root *os.Root, name string, was fs.FileMode) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != was {
		err = fmt.Errorf("%q: is not what it was any more", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unpack writes a tar below a directory, and nothing outside of it.
func (c *copying) unpack(ctx context.Context, dir *os.File, from io.Reader) error {
	root, err := os.OpenRoot(handle(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	var dirs []*tar.Header // their modes and times come last
	for t := tar.NewReader(from); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if h.Name = path.Clean(h.Name); h.Name == "." && h.Typeflag == tar.TypeDir {
			continue // it is there, and stays as it is
		}
		if err := c.place(root, h, t); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := c.finish(root, dirs[i]); err != nil {
			return fmt.Errorf("%s: %w", dirs[i].Name, err)
		}
	}
	return nil
}

// place writes one entry.
func (c *copying) place(root *os.Root, h *tar.Header, from io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(h.Name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeReg:
		return c.file(root, h, from)
	case tar.TypeSymlink:
		if err := gone(root.Remove(h.Name)); err != nil {
			return err
		}
		return root.Symlink(h.Linkname, h.Name)
	case tar.TypeLink:
		if err := gone(root.Remove(h.Name)); err != nil {
			return err
		}
		return root.Link(path.Clean(h.Linkname), h.Name)
	}
	return errors.New("devices and pipes are not copied")
}

// file writes a file anew: whoever has the old one open keeps it.
func (c *copying) file(root *os.Root, h *tar.Header, from io.Reader) error {
	if err := gone(root.Remove(h.Name)); err != nil {
		return err
	}
	f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, from, h.Size)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.finish(root, h)
}

// finish gives a file or directory its owner, mode and time. Without --archive it is
// whoever copies who owns it: root, in a container.
func (c *copying) finish(root *os.Root, h *tar.Header) error {
	if c.archive {
		if err := root.Lchown(h.Name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	return errors.Join(root.Chmod(h.Name, c.mode(h)), root.Chtimes(h.Name, h.ModTime, h.ModTime))
}

// mode is what a file may be used for. That it acts for its owner, or for its group, was said
// by the owner that it had: with another it goes, as with chown, and whoever is root in a
// container is nobody here.
func (c *copying) mode(h *tar.Header) fs.FileMode {
	mode := h.FileInfo().Mode()
	if c.archive || h.Typeflag != tar.TypeReg {
		return mode
	}
	here := c.target.root == nil
	if here || h.Uid != 0 {
		mode &^= fs.ModeSetuid
	}
	if here || h.Gid != 0 {
		mode &^= fs.ModeSetgid
	}
	return mode
}

// gone forgives that there is nothing to remove.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
