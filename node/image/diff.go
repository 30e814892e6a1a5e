package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A checkpoint of a container has what the container has written as a plain tar, and
// beside it the list of what it has deleted: no layer, whose tar says both.

// Annotations are those of an image's manifest.
func (s *Store) Annotations(img Image) (map[string]string, error) {
	m, err := s.manifest(img.Manifest)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", img.ID, err)
	}
	return m.Annotations, nil
}

// WriteDiff writes a tar of what has been added to the snapshot key or changed in it, as
// changes has it, and says what has been deleted. What is no file of its own, such as a
// socket, is left out. Nothing may write to the snapshot meanwhile.
func (s *Store) WriteDiff(w io.Writer, key string, changes []Change) (deleted []string, err error) {
	places, err := s.Snapshot(key)
	if err != nil {
		return nil, err
	}
	upper, err := os.OpenRoot(places.Upper)
	if err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", key, err)
	}
	defer upper.Close()
	out := tar.NewWriter(w)
	for _, c := range changes {
		if c.Kind == Deleted {
			deleted = append(deleted, c.Path)
			continue
		}
		if err := writeEntry(out, upper, strings.TrimPrefix(c.Path, "/")); err != nil {
			return nil, fmt.Errorf("snapshot %q: %q: %w", key, c.Path, err)
		}
	}
	return deleted, out.Close()
}

// writeEntry writes one path of a container.
func writeEntry(out *tar.Writer, root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err != nil {
		return unlessGone(err)
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSocket != 0:
		return nil
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = root.Readlink(name); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uname, h.Gname = "", "" // the host's names are nobody's in there
	if info.IsDir() {
		h.Name += "/"
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return out.WriteHeader(h)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if h.PAXRecords, err = xattrsOf(f); err != nil {
		return err
	}
	if err := out.WriteHeader(h); err != nil || info.IsDir() {
		return err
	}
	_, err = io.CopyN(out, f, h.Size)
	return err
}

// xattrsOf are a file's extended attributes as a tar has them, without overlayfs's own.
func xattrsOf(f *os.File) (map[string]string, error) {
	all, err := Attributes(f, func(name string) bool {
		return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
	})
	out := map[string]string{}
	for name, value := range all {
		out[paxXattrPrefix+name] = value
	}
	return out, err
}

// ApplyDiff puts what WriteDiff has written, and what it has said to be deleted, into the
// snapshot key, which nothing may use. The tar may be anybody's: it is taken as a layer is.
func (s *Store) ApplyDiff(ctx context.Context, key string, r io.Reader, deleted []string) error {
	places, err := s.Snapshot(key)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(places.Upper)
	if err != nil {
		return fmt.Errorf("snapshot %q: %w", key, err)
	}
	defer root.Close()
	x := &extractor{root: root, invented: map[string]bool{}}
	defer x.leave()
	if err := x.extract(ctx, tar.NewReader(r)); err != nil {
		return fmt.Errorf("snapshot %q: %w", key, err)
	}
	if len(deleted) > maxChanges {
		return fmt.Errorf("snapshot %q: more than %d deletions: %w", key, maxChanges, ErrTooLarge)
	}
	for _, path := range deleted {
		if err := x.delete(path); err != nil {
			return fmt.Errorf("snapshot %q: delete %q: %w", key, path, err)
		}
	}
	x.leave()
	bottomFirst := slices.Clone(places.Lower)
	slices.Reverse(bottomFirst)
	for _, dir := range slices.Sorted(maps.Keys(x.invented)) {
		if err := inherit(root, dir, bottomFirst); err != nil {
			return fmt.Errorf("snapshot %q: %w", key, err)
		}
	}
	return nil
}

// delete hides a path in the layers below.
func (x *extractor) delete(path string) error {
	name, err := cleanPath(path)
	if err != nil {
		return err
	}
	if name == "." {
		return fmt.Errorf("the root: %w", ErrInvalid)
	}
	if err := x.parents(filepath.Dir(name)); err != nil {
		return err
	}
	return x.whiteout(name)
}
