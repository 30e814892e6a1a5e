package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Whiteouts as layers spell them (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
	paxXattrPrefix = "SCHILY.xattr."
)

// extractor writes tar entries below root. Every path goes through os.Root, so
// neither ".." nor a symlink that an earlier entry made leads outside.
type extractor struct {
	root  *os.Root
	below []string
	files int
	bytes int64
	// dirs get their times last: filling a directory changes them.
	dirs []*tar.Header
}

func (x *extractor) extract(ctx context.Context, tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x.finishDirs()
		}
		if err != nil {
			return fmt.Errorf("tar: %w: %w", ErrInvalid, err)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := x.count(h); err != nil {
			return err
		}
		if err := x.entry(h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

// count keeps the layer within its limits.
func (x *extractor) count(h *tar.Header) error {
	if x.files++; x.files > MaxLayerFiles {
		return fmt.Errorf("more than %d files: %w", MaxLayerFiles, ErrTooLarge)
	}
	if x.bytes += h.Size; x.bytes > MaxLayerBytes {
		return fmt.Errorf("more than %d bytes: %w", int64(MaxLayerBytes), ErrTooLarge)
	}
	return nil
}

// entry writes one tar entry.
func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	name, err := cleanPath(h.Name)
	if err != nil {
		return err
	}
	h.Name = name
	if err := x.parents(path.Dir(name)); err != nil {
		return err
	}
	base := path.Base(name)
	if base == opaqueMarker {
		return x.opaque(path.Dir(name))
	}
	if removed, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return x.whiteout(path.Join(path.Dir(name), removed))
	}
	if err := x.replace(h); err != nil {
		return err
	}
	if err := x.create(h, r); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil // a hard link's metadata is its target's
	}
	return x.metadata(h)
}

// replace removes what an earlier entry of the layer left under the same name,
// except that a directory stays when a directory comes.
func (x *extractor) replace(h *tar.Header) error {
	if h.Name == "." {
		return nil
	}
	info, err := x.root.Lstat(h.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() && h.Typeflag == tar.TypeDir {
		return nil
	}
	return x.root.RemoveAll(h.Name)
}

// create makes the entry itself, without its metadata.
func (x *extractor) create(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		x.dirs = append(x.dirs, h)
		if err := x.root.Mkdir(h.Name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeReg:
		return x.file(h, r)
	case tar.TypeSymlink:
		return x.root.Symlink(h.Linkname, h.Name)
	case tar.TypeLink:
		target, err := cleanPath(h.Linkname)
		if err != nil {
			return err
		}
		return x.root.Link(target, h.Name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.node(h)
	}
	return fmt.Errorf("unknown entry type %q: %w", h.Typeflag, ErrInvalid)
}

func (x *extractor) file(h *tar.Header, r io.Reader) error {
	f, err := x.root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, r)
	if err != nil {
		return err
	}
	if n != h.Size {
		return fmt.Errorf("%d bytes of %d: %w", n, h.Size, ErrInvalid)
	}
	return f.Close()
}

// node makes a device or a fifo.
func (x *extractor) node(h *tar.Header) error {
	mode := uint32(h.FileInfo().Mode().Perm())
	dev := 0
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	}
	if h.Typeflag != tar.TypeFifo {
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	return x.at(h.Name, func(dir int, base string) error {
		return unix.Mknodat(dir, base, mode, dev)
	})
}

// whiteout hides name in the layers below: overlayfs wants a 0/0 device there.
func (x *extractor) whiteout(name string) error {
	if err := x.root.RemoveAll(name); err != nil {
		return err
	}
	return x.at(name, func(dir int, base string) error {
		return unix.Mknodat(dir, base, unix.S_IFCHR, 0)
	})
}

// opaque hides everything below directory name.
func (x *extractor) opaque(name string) error {
	d, err := x.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Fsetxattr(int(d.Fd()), opaqueXattr, []byte("y"), 0)
}

// at calls do with the open parent directory of name.
func (x *extractor) at(name string, do func(dir int, base string) error) error {
	d, err := x.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return do(int(d.Fd()), path.Base(name))
}

// parents makes the directories that a layer leaves out, with the owner and mode
// they have in the layers below: overlayfs would otherwise show our invention.
func (x *extractor) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := x.root.Stat(dir); err == nil {
		return nil
	}
	if err := x.parents(path.Dir(dir)); err != nil {
		return err
	}
	if err := x.root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := len(x.below) - 1; i >= 0; i-- {
		var st unix.Stat_t
		if !lowerDir(x.below[i], dir, &st) {
			continue
		}
		if err := x.root.Lchown(dir, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		return x.root.Chmod(dir, modeOf(int64(st.Mode)))
	}
	return nil
}

// lowerDir stats a directory of a lower layer without leaving that layer.
func lowerDir(layer, dir string, st *unix.Stat_t) bool {
	root, err := os.OpenRoot(layer)
	if err != nil {
		return false
	}
	defer root.Close()
	d, err := root.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	return unix.Fstat(int(d.Fd()), st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}
