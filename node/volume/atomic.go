package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Names inside a volume made from objects, as upstream lays them out: the files
// are in a directory "..<something>", "..data" points at the current one, and
// every visible name is a symlink through "..data". Renaming "..data" switches
// all files at once.
const (
	dataLink    = "..data"
	dataLinkNew = "..data_tmp"
	versionGlob = "..v-*"
)

// maxPath bounds a file's path in a volume, as the API's validation does.
const maxPath = 4096

// checkPath refuses paths that would leave the volume or clash with the links.
func checkPath(path string) error {
	if path == "" || len(path) > maxPath || filepath.IsAbs(path) {
		return fmt.Errorf("invalid path: %q must be relative and not empty", path)
	}
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if p == ".." {
			return fmt.Errorf("invalid path: %q must not contain '..'", path)
		}
	}
	if strings.HasPrefix(parts[0], "..") {
		return fmt.Errorf("invalid path: %q must not start with '..'", path)
	}
	return nil
}

// write brings dir to exactly the given contents: readers see all of the old
// files or all of the new. Unchanged contents are left alone. gid owns the
// files and, with the set-group-id bit, their directories unless it is -1.
func write(dir string, files payload, gid int) error {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s of %q: %w", dataLink, dir, err)
	}
	if current != "" && same(filepath.Join(dir, current), files) {
		return links(dir, files)
	}
	version, err := os.MkdirTemp(dir, versionGlob)
	if err != nil {
		return fmt.Errorf("create new version in %q: %w", dir, err)
	}
	if err := fill(version, files, gid); err != nil {
		return errors.Join(err, os.RemoveAll(version))
	}
	if err := swap(dir, filepath.Base(version)); err != nil {
		return errors.Join(err, os.RemoveAll(version))
	}
	if err := links(dir, files); err != nil {
		return err
	}
	return sweep(dir, filepath.Base(version), files)
}

func fill(version string, files payload, gid int) error {
	if err := os.Chmod(version, 0o755); err != nil {
		return err
	}
	for path, f := range files {
		full := filepath.Join(version, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fmt.Errorf("create directory of %q: %w", path, err)
		}
		if err := os.WriteFile(full, f.data, f.mode); err != nil {
			return fmt.Errorf("write %q: %w", path, err)
		}
		// The mode again: the process's umask has taken bits away.
		if err := os.Chmod(full, f.mode); err != nil {
			return fmt.Errorf("set mode of %q: %w", path, err)
		}
		if f.uid == -1 && gid == -1 {
			continue
		}
		if err := os.Chown(full, f.uid, gid); err != nil {
			return fmt.Errorf("set owner of %q: %w", path, err)
		}
	}
	if gid == -1 {
		return nil
	}
	return filepath.WalkDir(version, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("give %q to group %d: %w", path, gid, err)
		}
		return os.Chmod(path, 0o755|fs.ModeSetgid)
	})
}

func swap(dir, version string) error {
	tmp := filepath.Join(dir, dataLinkNew)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale link: %w", err)
	}
	if err := os.Symlink(version, tmp); err != nil {
		return fmt.Errorf("link new version: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return fmt.Errorf("switch to new version: %w", err)
	}
	return nil
}

// links makes the visible names: the first element of every path.
func links(dir string, files payload) error {
	for path := range files {
		top, _, _ := strings.Cut(path, "/")
		err := os.Symlink(filepath.Join(dataLink, top), filepath.Join(dir, top))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %q: %w", top, err)
		}
	}
	return nil
}

// sweep removes visible names that are gone and versions that are old.
func sweep(dir, version string, files payload) error {
	visible := map[string]bool{dataLink: true, version: true}
	for path := range files {
		top, _, _ := strings.Cut(path, "/")
		visible[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %q: %w", dir, err)
	}
	for _, e := range entries {
		if visible[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove old %q: %w", e.Name(), err)
		}
	}
	return nil
}

// errDiffers ends a comparison early.
var errDiffers = errors.New("contents differ")

// same reports whether a version directory holds exactly these files.
func same(version string, files payload) bool {
	seen := 0
	err := filepath.WalkDir(version, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		rel, err := filepath.Rel(version, path)
		if err != nil {
			return err
		}
		want, ok := files[rel]
		if !ok || !sameFile(path, want) {
			return errDiffers
		}
		return nil
	})
	return err == nil && seen == len(files)
}

func sameFile(path string, want file) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Size() != int64(len(want.data)) || info.Mode().Perm() != want.mode.Perm() {
		return false
	}
	have, err := os.ReadFile(path)
	return err == nil && bytes.Equal(have, want.data)
}
