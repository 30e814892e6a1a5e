package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container"
)

// maxContextValue is what fsconfig(2) takes of a value, in bytes.
const maxContextValue = 255

// unfit says why no container can ever run here with images in dir: the kernel is too old,
// or the file system is none for them. Status tells it, so that the node is not Ready.
func unfit(dir string) error {
	if err := container.KernelFits(); err != nil {
		return err
	}
	if err := takesUpper(dir); err != nil {
		return fmt.Errorf("what containers write can't be in %q: it wants a disk's own file system, or in a container a volume: %w", dir, err)
	}
	return nil
}

// takesUpper says that the file system of dir can't hold what containers write, if it can't:
// overlayfs does not write on another overlay, as a container's own root is, nor on NFS. It asks
// the kernel by making an overlay that is mounted nowhere. Whether it could not ask,
// for want of room, say, is another matter, and none for whoever starts.
func takesUpper(dir string) error {
	try, err := os.MkdirTemp(dir, "upper-")
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer os.RemoveAll(try)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer unix.Close(fs)
	for _, part := range []string{"lowerdir", "upperdir", "workdir"} {
		path := filepath.Join(try, part)
		if len(path) > maxContextValue || os.Mkdir(path, 0o700) != nil {
			return nil
		}
		if err := unix.FsconfigSetString(fs, part, path); errors.Is(err, unix.EINVAL) { // Linux 6.7 and later look at once
			return fmt.Errorf("set %s of an overlay: %w", part, err)
		}
	}
	if err := unix.FsconfigCreate(fs); errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("make an overlay: %w", err)
	}
	return nil
}
