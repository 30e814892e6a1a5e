package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// opaqueAttribute marks a directory that hides what layers below have of it.
const opaqueAttribute = "trusted.overlay.opaque"

// part are the directories that an image's layers, topmost first, have at a path:
// united they show what the whole image shows there. Layers are read as overlayfs
// does: a whiteout or a file hides what is below, and so does an opaque
// directory. A path through a symbolic link is refused, so that none leads out.
func part(lower []string, path string) ([]string, error) {
	if path == "" {
		return lower, nil
	}
	if !filepath.IsLocal(path) {
		return nil, fmt.Errorf("sub path %q leads out of the image: %w", path, ErrInvalid)
	}
	dirs := lower
	for name := range strings.SplitSeq(filepath.Clean(path), "/") {
		if name == "." {
			continue
		}
		var err error
		if dirs, err = below(dirs, name); err != nil {
			return nil, fmt.Errorf("sub path %q of the image: %w", path, err)
		}
	}
	return dirs, nil
}

// below goes one step down in every layer, until one hides the rest.
func below(dirs []string, name string) ([]string, error) {
	var found []string
	for _, dir := range dirs {
		at := filepath.Join(dir, name)
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case info.IsDir():
			found = append(found, at)
			if opaque(at) {
				return found, nil
			}
			continue
		case len(found) > 0, whiteout(info):
			return someOf(found, name)
		}
		return nil, fmt.Errorf("%q is not a directory: %w", name, ErrInvalid)
	}
	return someOf(found, name)
}

func someOf(found []string, name string) ([]string, error) {
	if len(found) == 0 {
		return nil, fmt.Errorf("%q does not exist: %w", name, ErrInvalid)
	}
	return found, nil
}

// whiteout is a device 0/0.
func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode()&fs.ModeCharDevice != 0 && ok && st.Rdev == 0
}

func opaque(dir string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(dir, opaqueAttribute, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}
