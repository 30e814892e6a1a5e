package build

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Working directories may have mounts in them, and even secrets. Each is locked by
// the process that has it: the kernel lets go of the lock when that process ends,
// however it does, and the next build clears what has no owner.

// viewDirs and its like are the names of working directories.
const (
	viewDirs = "sampan-build-*"
	runDirs  = "run-*"
	addDirs  = "add-*"
)

// workDir is a directory for one thing that a build does.
type workDir struct {
	path string
	lock *os.File
}

// newWorkDir makes a working directory, and its parent unless that is "", which is
// the place for temporary files.
func newWorkDir(parent, pattern string) (*workDir, error) {
	if parent != "" {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return nil, err
		}
	}
	for {
		path, err := os.MkdirTemp(parent, pattern)
		if err != nil {
			return nil, err
		}
		lock, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody has cleared it before it had its lock
		}
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(path))
		}
		if _, err := os.Stat(path); err == nil {
			return &workDir{path: path, lock: lock}, nil
		}
		lock.Close()
	}
}

// close removes the directory. What was mounted in it has been unmounted.
func (w *workDir) close() error {
	return errors.Join(os.RemoveAll(w.path), w.lock.Close())
}

// Clear removes what builds that have died left behind: mounts and working
// directories in the cache directory and among the temporary files. Those of
// builds that live stay.
func Clear(cache string) error {
	var errs []error
	for _, pattern := range []string{filepath.Join(os.TempDir(), viewDirs), filepath.Join(cache, runDirs), filepath.Join(cache, addDirs)} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			errs = append(errs, clearDir(dir))
		}
	}
	return errors.Join(errs...)
}

// clearDir removes one directory, if nobody has it.
func clearDir(dir string) error {
	var info unix.Stat_t
	if err := unix.Lstat(dir, &info); err != nil || int(info.Uid) != os.Geteuid() {
		return nil //nolint:nilerr // it has just gone, or is somebody else's
	}
	lock, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // its owner lives
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %q, which a build has left behind: %w", m, err)
		}
	}
	return os.RemoveAll(dir)
}

// mountsBelow are the mounts at and below a directory, in the order they were made.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		at := unescaped(fields[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			found = append(found, at)
		}
	}
	return found, nil
}

// unescaped undoes the octal escapes of mountinfo (proc(5)).
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
