package build

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// layerWriter writes the tar of one layer, each path once.
type layerWriter struct {
	ctx   context.Context
	tar   *tar.Writer
	epoch *time.Time
	made  map[string]bool
	// below is a directory that everything goes below; "" for none.
	below string
}

func newLayerWriter(ctx context.Context, w io.Writer, epoch *time.Time) *layerWriter {
	return &layerWriter{ctx: ctx, tar: tar.NewWriter(w), epoch: epoch, made: map[string]bool{}}
}

// finish ends the tar, unless writing it failed with err.
func (w *layerWriter) finish(err error) error {
	if err != nil {
		return err
	}
	return w.tar.Close()
}

// owner is whom a copied file belongs to, and with which permissions.
type owner struct {
	uid, gid int
	// kept: a file keeps the owner that it has where it comes from.
	kept bool
	// parent is the mode of directories that are made on the way.
	parent os.FileMode
	// links are the files written so far that have several names; nil: each is a file
	// of its own.
	links map[inode]string
	// mode makes new permissions of the source's; nil keeps them.
	mode func(old os.FileMode, dir bool) os.FileMode
}

// inode is a file, whatever it is called.
type inode struct{ dev, ino uint64 }

// parent makes a directory for what goes into it.
func (w *layerWriter) parent(p string, o owner) error {
	return w.header(&tar.Header{Typeflag: tar.TypeDir, Name: entryName(p) + "/", Mode: unixMode(o.parent), Uid: o.uid, Gid: o.gid, ModTime: w.now()})
}

// now is the time of entries that have no source.
func (w *layerWriter) now() time.Time {
	if w.epoch != nil {
		return *w.epoch
	}
	return time.Unix(0, 0)
}

// header writes an entry's header, with its time not after the epoch.
func (w *layerWriter) header(h *tar.Header) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	if w.epoch != nil && h.ModTime.After(*w.epoch) {
		h.ModTime = *w.epoch
	}
	h.Format = tar.FormatPAX
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Uname, h.Gname = "", ""
	w.made[strings.TrimSuffix(h.Name, "/")] = true
	if w.below != "" {
		h.Name = w.below + "/" + h.Name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = w.below + "/" + h.Linkname
		}
	}
	return w.tar.WriteHeader(h)
}

// file writes one regular file with the given content.
func (w *layerWriter) file(to string, content []byte, o owner) error {
	mode := os.FileMode(0o644)
	if o.mode != nil {
		mode = o.mode(mode, false)
	}
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: entryName(to), Size: int64(len(content)),
		Mode: unixMode(mode), Uid: o.uid, Gid: o.gid, ModTime: w.now(),
	}
	if err := w.header(h); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}

// copy writes one file, directory or link of a source tree.
func (w *layerWriter) copy(src source, to string, o owner) error {
	info := src.info
	h := &tar.Header{Name: entryName(to), Mode: unixMode(info.Mode()), Uid: o.uid, Gid: o.gid, ModTime: info.ModTime()}
	if o.kept {
		h.Uid, h.Gid = ownerOf(info)
	}
	if o.mode != nil && info.Mode()&os.ModeSymlink == 0 {
		h.Mode = unixMode(o.mode(info.Mode(), info.IsDir()))
	}
	switch {
	case info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return w.header(h)
	case info.Mode()&os.ModeSymlink != 0:
		target, err := src.tree.Readlink(src.path)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return w.header(h)
	case info.Mode().IsRegular():
		if first, known := o.linked(info, h.Name); known {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return w.header(h)
		}
		return w.regular(src, h)
	case info.Mode()&os.ModeNamedPipe != 0:
		h.Typeflag = tar.TypeFifo
		return w.header(h)
	case info.Mode()&os.ModeSocket != 0: // as BuildKit has it
		h.Typeflag = tar.TypeReg
		return w.header(h)
	}
	return nil // devices have no place in a layer
}

// ownerOf is whom a file belongs to where it is.
func ownerOf(info os.FileInfo) (uid, gid int) {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid), int(sys.Gid)
	}
	return 0, 0
}

// linked is under which name a file with several has been written before; this one is
// remembered.
func (o owner) linked(info os.FileInfo, name string) (first string, known bool) {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok || sys.Nlink < 2 || o.links == nil {
		return "", false
	}
	file := inode{dev: sys.Dev, ino: sys.Ino}
	if first, known = o.links[file]; !known {
		o.links[file] = name
	}
	return first, known
}

// regular writes a file's content; a file that changes its size meanwhile fails.
func (w *layerWriter) regular(src source, h *tar.Header) error {
	f, err := src.tree.Open(src.path)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, src.info.Size()
	if h.PAXRecords, err = fileCapabilities(f); err != nil {
		return err
	}
	if err := w.header(h); err != nil {
		return err
	}
	_, err = io.CopyN(w.tar, f, h.Size)
	return err
}

// entryName is a tar entry's name for an absolute path.
func entryName(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }

// unixMode is a mode's permission and set-id bits as tar has them.
func unixMode(m os.FileMode) int64 {
	mode := int64(m.Perm())
	if m&os.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if m&os.ModeSetgid != 0 {
		mode |= 0o2000
	}
	if m&os.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}
