package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// A command of the OCI runtime lives for some milliseconds, and asks Go's poller for
// nothing: to set it up takes as long as to read all files that there are to read.

// maxConfig bounds a config.json, and what is read here in general.
const maxConfig = 16 << 20

// readFile is os.ReadFile without the poller.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 8<<10)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) > maxConfig {
			return nil, fmt.Errorf("read %q: more than %d bytes", path, maxConfig)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// writeVolatile writes what a reboot voids: a container of this command line does
// not outlive one. Whoever gives the commands of a container waits for each, so that
// nobody else writes the file.
func writeVolatile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %q: %w", path, err)
	}
	part := path + atomicfile.Suffix
	fd, err := unix.Open(part, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: part, Err: err}
	}
	n, err := unix.Write(fd, b)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err == nil && n != len(b) {
		err = unix.ENOSPC
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: part, Err: err}
	}
	if err := unix.Rename(part, path); err != nil {
		return &os.LinkError{Op: "rename", Old: part, New: path, Err: err}
	}
	return nil
}

// removeState removes a container's directory: mostly it has two files.
func removeState(dir string) error {
	for _, name := range []string{stateFile, planFile} {
		_ = unix.Unlink(filepath.Join(dir, name)) // RemoveAll says what is wrong
	}
	if unix.Rmdir(dir) == nil {
		return nil
	}
	unpinMappings(dir)
	_ = unix.Unmount(filepath.Join(dir, userPin), unix.MNT_DETACH) // there may be none
	return os.RemoveAll(dir)
}

// removeGroup removes a group, with everybody in it.
func removeGroup(ctx context.Context, g *cgroup.Group) error {
	if g.TryRemove() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	if err := g.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return g.Remove(ctx)
}
