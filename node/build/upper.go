package build

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// pack turns an overlayfs upper directory into a layer.
func (b *builder) pack(ctx context.Context, upper string) (image.Layer, error) {
	reader, writer := io.Pipe()
	go func() {
		w := newLayerWriter(ctx, writer, b.opts.Epoch)
		writer.CloseWithError(w.finish(w.upper(upper)))
	}()
	defer func() { _ = reader.Close() }() // never fails
	return b.content.WriteLayer(reader)
}

// upper writes every change that lies in an overlayfs upper directory; deletions
// become whiteouts as the OCI image specification spells them.
func (w *layerWriter) upper(dir string) error {
	links := map[uint64]string{}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name := strings.TrimPrefix(p, dir+"/")
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return w.header(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), ".wh."+path.Base(name)), ModTime: w.now()})
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return w.changed(p, name, changed{info: info, st: st, links: links})
	})
}

// changed is one file of an upper directory.
type changed struct {
	info  fs.FileInfo
	st    unix.Stat_t
	links map[uint64]string
}

// changed writes one file or directory with owner, mode, links and xattrs.
func (w *layerWriter) changed(p, name string, c changed) error {
	target := ""
	if c.info.Mode()&os.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(c.info, target)
	if err != nil {
		return nil // a socket
	}
	h.Name, h.Uid, h.Gid = name, int(c.st.Uid), int(c.st.Gid)
	if c.info.IsDir() {
		h.Name += "/"
	}
	if c.info.Mode().IsRegular() && c.st.Nlink > 1 {
		if first, ok := c.links[c.st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return w.header(h)
		}
		c.links[c.st.Ino] = name
	}
	h.PAXRecords = capabilities(p)
	if err := w.header(h); err != nil {
		return err
	}
	if c.info.IsDir() && opaque(p) {
		return w.header(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(name, ".wh..wh..opq"), ModTime: w.now()})
	}
	if !c.info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w.tar, f, h.Size)
	return err
}

// opaque says whether a directory of an upper hides what is below it.
func opaque(p string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// capabilities is the one extended attribute that images carry.
func capabilities(p string) map[string]string {
	var value [64]byte
	n, err := unix.Lgetxattr(p, capabilityAttribute, value[:])
	if err != nil || n <= 0 {
		return nil
	}
	return capabilityRecord(value[:n])
}

// capabilityAttribute is where Linux keeps the capabilities that a program gains.
const capabilityAttribute = "security.capability"

func capabilityRecord(value []byte) map[string]string {
	return map[string]string{"SCHILY.xattr." + capabilityAttribute: string(value)}
}

// fileCapabilities is capabilities of an open file. One on a file system without
// attributes has none.
func fileCapabilities(f *os.File) (map[string]string, error) {
	var value [64]byte
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := 0
	if e := raw.Control(func(fd uintptr) { n, err = unix.Fgetxattr(int(fd), capabilityAttribute, value[:]) }); e != nil {
		return nil, e
	}
	if err != nil || n <= 0 {
		return nil, nil //nolint:nilerr // as above
	}
	return capabilityRecord(value[:n]), nil
}
