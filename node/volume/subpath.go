package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// SubPath names a part of a volume for one mount of one container.
type SubPath struct {
	PodUID, Volume, Container string
	// Index is the mount's place in the container's volumeMounts.
	Index int
	// Root is the volume's path, Path what is wanted below it.
	Root, Path string
	// Writable volumes get a missing Path created as a directory.
	Writable bool
}

// BindSubPath gives a host path that shows exactly the named part of a volume
// and stays that, whatever the containers do to the volume's symlinks: the part
// is opened beneath the volume's root (openat2, no way out) and that open file
// is bind-mounted under the pod's own directory. Needs root.
func (v *Volumes) BindSubPath(s SubPath) (string, error) {
	if err := checkPath(s.Path); err != nil {
		return "", fmt.Errorf("subPath: %w", err)
	}
	part, err := openPart(s)
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", s.Volume, s.Container, err)
	}
	defer part.Close()
	target := filepath.Join(v.Dir(s.PodUID), "volume-subpaths", s.Volume, s.Container, strconv.Itoa(s.Index))
	if err := bind(part, target); err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", s.Volume, s.Container, err)
	}
	return target, nil
}

func openPart(s SubPath) (*os.File, error) {
	root, err := os.OpenFile(s.Root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	part, err := pathrs.OpenatInRoot(root, s.Path)
	if !errors.Is(err, fs.ErrNotExist) || !s.Writable {
		return part, err
	}
	return makePart(root, s.Path)
}

// makePart creates a directory with the mode of the volume's root, so that
// whoever may write to the volume may write to it too.
func makePart(root *os.File, path string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return nil, fmt.Errorf("ask for the volume's mode: %w", err)
	}
	part, err := pathrs.MkdirAllHandle(root, path, os.FileMode(st.Mode&0o777))
	if err != nil {
		return nil, err
	}
	// Again: the process's umask has taken bits away, and none else were given.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", part.Fd()), st.Mode&0o7777); err != nil {
		part.Close()
		return nil, fmt.Errorf("set mode of %q: %w", path, err)
	}
	return part, nil
}

// bind mounts an open file or directory at target. A mount that is there from
// an earlier container is replaced, since what it shows may be stale.
func bind(part *os.File, target string) error {
	info, err := part.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if _, err := os.Lstat(target); err == nil {
		if err := replace(target); err != nil {
			return err
		}
		if err := os.Remove(target); err != nil {
			return err
		}
	}
	if info.IsDir() {
		err = os.Mkdir(target, 0o750)
	} else {
		err = createFile(target)
	}
	if err != nil {
		return err
	}
	source := "/proc/self/fd/" + strconv.Itoa(int(part.Fd()))
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind subPath: %w", err)
	}
	return nil
}
