package build

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/sampan-dev/sampan/node/image"
)

// isArchive says whether a file is a tar, compressed or not.
func isArchive(s source) (bool, error) {
	if !s.info.Mode().IsRegular() {
		return false, nil
	}
	f, err := s.tree.Open(s.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	plain, done, err := decompress(f)
	if err != nil {
		return false, nil //nolint:nilerr // it only begins like something compressed
	}
	defer done()
	_, err = tar.NewReader(plain).Next()
	return err == nil, nil
}

// unpack copies the entries of an archive below to. Directories that it does not tell
// of are those that are there, be it by symlinks.
func (w *layerWriter) unpack(s source, to string, c copying) error {
	o := c.owner
	f, err := s.tree.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, done, err := decompress(f)
	if err != nil {
		return err
	}
	defer done()
	for tr := tar.NewReader(plain); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar: %w: %w", image.ErrInvalid, err)
		}
		name := path.Join(to, path.Clean("/"+h.Name))
		if name == "/" {
			continue
		}
		if h.Name, err = w.place(name, c.under); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, err = w.place(path.Join(to, path.Clean("/"+h.Linkname)), c.under); err != nil {
				return err
			}
		}
		if o.uid != 0 || o.gid != 0 {
			h.Uid, h.Gid = o.uid, o.gid
		}
		if err := w.header(h); err != nil {
			return err
		}
		if _, err := io.Copy(w.tar, tr); err != nil {
			return err
		}
	}
}

// place is the entry's name of a path: where its directory lies below this layer, unless
// the layer has one of its own.
func (w *layerWriter) place(name string, under *view) (string, error) {
	dir := path.Dir(name)
	if under == nil || w.made[entryName(dir)] {
		return entryName(name), nil
	}
	dir, err := under.destination(dir)
	return entryName(path.Join(dir, path.Base(name))), err
}
