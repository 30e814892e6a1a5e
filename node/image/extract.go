package image

import (
	"archive/tar"
	"bytes"
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
	files int
	bytes int64
	// dirs get their times last: filling a directory changes them.
	dirs []*tar.Header
	// invented are directories that entries need and the layer does not have.
	invented map[string]bool
	// dir is the open parent of the last entries, under the name dirName: the
	// next entry is most often its neighbour.
	dir     *os.Root
	dirName string
	buf     []byte
}

// enter opens the directory called name, or finds it open.
func (x *extractor) enter(name string) (*os.Root, error) {
	if x.dir != nil && x.dirName == name {
		return x.dir, nil
	}
	x.leave()
	d, err := x.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	x.dir, x.dirName = d, name
	return d, nil
}

// leave forgets the open directory: its name may mean another one from now on.
func (x *extractor) leave() {
	if x.dir != nil {
		x.dir.Close()
		x.dir = nil
	}
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
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse {
		return x.content(h, r, describeFile)
	}
	if err := x.replace(h); err != nil {
		return err
	}
	if err := x.create(h); err != nil {
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
	dir, err := x.enter(path.Dir(h.Name))
	if err != nil {
		return err
	}
	info, err := dir.Lstat(path.Base(h.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() && h.Typeflag == tar.TypeDir {
		return nil
	}
	x.leave()
	return x.root.RemoveAll(h.Name)
}

// create makes the entry itself, when it is no file, without its metadata.
func (x *extractor) create(h *tar.Header) error {
	dir, err := x.enter(path.Dir(h.Name))
	if err != nil {
		return err
	}
	base := path.Base(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		x.dirs = append(x.dirs, h)
		delete(x.invented, h.Name)
		if h.Name == "." {
			return nil
		}
		if err := dir.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeSymlink:
		return dir.Symlink(h.Linkname, base)
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

// content writes a file, which most entries are. describe adds its metadata by the
// descriptor, so that its name is looked up once; nil leaves it without.
func (x *extractor) content(h *tar.Header, r io.Reader, describe func(*os.File, *tar.Header) error) error {
	f, err := x.newFile(h)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := x.fill(f, r)
	if err != nil {
		return err
	}
	if n != h.Size {
		return fmt.Errorf("%d bytes of %d: %w", n, h.Size, ErrInvalid)
	}
	if describe != nil {
		if err := describe(f, h); err != nil {
			return err
		}
	}
	return f.Close()
}

// newFile makes an empty file, in place of what an earlier entry has left there.
func (x *extractor) newFile(h *tar.Header) (*os.File, error) {
	for again := false; ; again = true {
		dir, err := x.enter(path.Dir(h.Name))
		if err != nil {
			return nil, err
		}
		f, err := dir.OpenFile(path.Base(h.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if again || !errors.Is(err, fs.ErrExist) {
			return f, err
		}
		if err := x.replace(h); err != nil {
			return nil, err
		}
	}
}

// hole is the number of zeros that are left out of a file: as long as a run of
// them is, the file system need not keep it.
const hole = 64 << 10

// fill copies a file's content, leaving holes where it is nothing but zeros.
func (x *extractor) fill(f *os.File, r io.Reader) (n int64, err error) {
	if x.buf == nil {
		x.buf = make([]byte, hole)
	}
	skipped := false
	for {
		got, err := io.ReadFull(r, x.buf)
		block := x.buf[:got]
		if got == hole && zeros(block) {
			skipped = true
			_, e := f.Seek(hole, io.SeekCurrent)
			if e != nil {
				return n, e
			}
		} else if got > 0 {
			skipped = false
			if _, e := f.Write(block); e != nil {
				return n, e
			}
		}
		n += int64(got)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return n, err
		}
	}
	if skipped {
		return n, f.Truncate(n)
	}
	return n, nil
}

// zeros says whether a block has nothing in it.
func zeros(block []byte) bool {
	return block[0] == 0 && bytes.Equal(block[1:], block[:len(block)-1])
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
	x.leave()
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
	dir, err := x.enter(path.Dir(name))
	if err != nil {
		return err
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return do(int(d.Fd()), path.Base(name))
}

// parents makes the directories that a layer leaves out, and remembers them.
func (x *extractor) parents(dir string) error {
	if dir == "." || x.dir != nil && x.dirName == dir {
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
	if x.invented == nil {
		x.invented = map[string]bool{}
	}
	x.invented[dir] = true
	return nil
}

// inherit gives dir the owner and mode that it has in the topmost of the layers
// below (bottom first) that have it.
func inherit(root *os.Root, dir string, below []string) error {
	if info, err := root.Lstat(dir); err != nil || !info.IsDir() {
		return nil // a later entry of the layer has put something else there
	}
	for i := len(below) - 1; i >= 0; i-- {
		var st unix.Stat_t
		if !lowerDir(below[i], dir, &st) {
			continue
		}
		if err := root.Lchown(dir, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		return root.Chmod(dir, modeOf(int64(st.Mode)))
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
