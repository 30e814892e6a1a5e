package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file in the data directory whose lock is the right to use it.
const lockName = "sampan.lock"

// ErrLocked says that another process uses the data directory.
var ErrLocked = errors.New("data directory in use")

// dirLock is the right to use a data directory. The kernel takes it back when
// the process dies, however it dies.
type dirLock struct{ file *os.File }

// lockDir takes the lock, or says at once who has it.
func lockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, lockName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
		return nil, fmt.Errorf("process %s has it: %w", holder(path), ErrLocked)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(file.Truncate(0), writeAt(file, pid)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", path, err), file.Close())
	}
	return &dirLock{file: file}, nil
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// holder is the process id that the lock's owner has written into it.
func holder(path string) string {
	content, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(content))
	if err != nil || pid == "" {
		return "(unknown)" // it took the lock an instant ago
	}
	return pid
}

// release gives the lock up. The file stays: removing it would let two
// processes hold two locks of the same name.
func (l *dirLock) release() error { return l.file.Close() }
