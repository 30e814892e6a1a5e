package engine

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxContextValue is what fsconfig(2) takes of a value, in bytes.
const maxContextValue = 255

// takesUpper says why the file system of dir can't hold what containers write, if it can't:
// overlayfs refuses to write on another overlay (a container's own root is one), on
// NFS, and on what has no extended attributes. It asks the kernel by making an overlay that is
// mounted nowhere.
func takesUpper(dir string) error {
	try, err := os.MkdirTemp(dir, "upper-")
	if err != nil {
		return fmt.Errorf("make a directory to try: %w", err)
	}
	defer os.RemoveAll(try)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, part := range []string{"lowerdir", "upperdir", "workdir"} {
		path := filepath.Join(try, part)
		if len(path) > maxContextValue {
			return nil // containers have other means; this look does not
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			return fmt.Errorf("make a directory to try: %w", err)
		}
		if err := unix.FsconfigSetString(fs, part, path); err != nil {
			return fmt.Errorf("set %s of an overlay: %w", part, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("make an overlay: %w", err)
	}
	return nil
}
