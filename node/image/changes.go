package image

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxChanges bounds how many changes of a container are told.
const maxChanges = 1 << 20

// Kinds of changes, in docker's letters.
const (
	Added   = 'A'
	Changed = 'C'
	Deleted = 'D'
)

// Change is one path of a container that is not as its image has it.
type Change struct {
	Kind rune
	// Path is absolute in the container.
	Path string
}

// Changes are what has been written to the snapshot key, in the order of paths: a
// directory in which something has changed has changed too. What was made only to
// mount something on it is left out: mounted says which paths are such. The snapshot
// may be in use; what changes meanwhile is told of or not.
func (s *Store) Changes(key string, mounted func(path string) bool) ([]Change, error) {
	places, err := s.Snapshot(key)
	if err != nil {
		return nil, err
	}
	d := differ{mounted: mounted}
	defer d.close()
	for _, place := range append([]string{places.Upper}, places.Lower...) {
		// Nothing that a container makes leads out of a Root.
		root, err := os.OpenRoot(place)
		if err != nil {
			return nil, fmt.Errorf("snapshot %q: %w", key, err)
		}
		d.layers = append(d.layers, root)
	}
	if err := d.walk("."); err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", key, err)
	}
	return d.found, nil
}

// differ compares the topmost of its layers with those below.
type differ struct {
	layers  []*os.Root
	mounted func(path string) bool
	found   []Change
}

func (d *differ) close() {
	for _, l := range d.layers {
		_ = l.Close() // nothing was written
	}
}

// walk tells of what is in a directory of the topmost layer.
func (d *differ) walk(dir string) error {
	entries, err := fs.ReadDir(d.layers[0].FS(), dir)
	if err != nil {
		return unlessGone(err)
	}
	if err := d.replaced(dir, entries); err != nil {
		return err
	}
	for _, e := range entries {
		if len(d.found) >= maxChanges {
			return fmt.Errorf("more than %d changes: %w", maxChanges, ErrTooLarge)
		}
		if err := d.look(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// look tells of one path of the topmost layer.
func (d *differ) look(name string) error {
	info, err := d.layers[0].Lstat(name)
	if err != nil {
		return unlessGone(err)
	}
	known := d.below(name)
	change := Change{Added, "/" + name}
	switch {
	case whiteout(info):
		if known {
			d.found = append(d.found, Change{Deleted, "/" + name})
		}
		return nil
	case known:
		change.Kind = Changed
	}
	at := len(d.found)
	d.found = append(d.found, change)
	hidden := d.mounted("/" + name)
	if !info.IsDir() {
		if hidden && info.Size() == 0 {
			d.found = d.found[:at]
		}
		return nil
	}
	before, err := fs.ReadDir(d.layers[0].FS(), name)
	if err != nil {
		return unlessGone(err)
	}
	if err := d.walk(name); err != nil {
		return err
	}
	if len(d.found) == at+1 && (hidden || len(before) > 0) {
		d.found = d.found[:at] // there is nothing in it but what is mounted
	}
	return nil
}

// replaced tells of what was in a directory that has been removed and made anew.
func (d *differ) replaced(dir string, now []fs.DirEntry) error {
	if dir == "." || !opaque(d.layers[0], dir) {
		return nil
	}
	have := map[string]bool{}
	for _, e := range now {
		have[e.Name()] = true
	}
	for _, l := range d.layers[1:] {
		entries, err := fs.ReadDir(l.FS(), dir)
		if err != nil {
			continue // it has no such directory
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if !have[e.Name()] && d.below(name) {
				have[e.Name()] = true
				d.found = append(d.found, Change{Deleted, "/" + name})
			}
		}
		if opaque(l, dir) {
			return nil
		}
	}
	return nil
}

// below says whether the layers below the topmost show a path.
func (d *differ) below(name string) bool {
	parts := strings.Split(name, "/")
	for _, l := range d.layers[1:] {
		for i := range parts {
			at := path.Join(parts[:i+1]...)
			info, err := l.Lstat(at)
			if err != nil {
				break // this one says nothing of it
			}
			last := i == len(parts)-1
			if whiteout(info) || !last && !info.IsDir() {
				return false
			}
			if last {
				return true
			}
			if _, err := l.Lstat(path.Join(parts[:i+2]...)); err != nil && opaque(l, at) {
				return false
			}
		}
	}
	return false
}

// whiteout says whether a file stands for one that has been deleted.
func whiteout(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && stat.Rdev == 0
}

// opaque says whether a directory hides what is in the layers below it.
func opaque(l *os.Root, dir string) bool {
	f, err := l.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	value := make([]byte, 2)
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(int(f.Fd()), name, value); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// unlessGone is nil for what went while it was looked at, or was made a link.
func unlessGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
