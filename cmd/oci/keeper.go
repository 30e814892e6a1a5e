package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container"
)

//go:embed assets
var assets embed.FS

// keeperDir holds the keeper program as a file, by its build: to copy it into
// memory for each container would take as long as all the rest.
const keeperDir = "/run/sampan-oci.programs"

// programMode lets anybody execute the file, and nobody write to it: who makes a user
// namespace is nobody on this machine. The directory keeps all but root away.
const programMode = 0o555

// keeper opens the keeper program. A process that it becomes has a view of it that
// is read-only for good, whatever its privileges: a mount of the one file that is
// in nobody's namespace. Where that cannot be made it is a sealed copy.
func keeper() (*os.File, error) {
	f, err := assets.Open("assets/keeper")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("this program was built without the keeper, which plays a container's first process: build it with make")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // an embedded file: nothing to fail
	program, ok := f.(interface {
		io.ReaderAt
		io.Reader
	})
	if ok {
		if kept, err := kept(program, f); err == nil {
			return kept, nil
		}
	}
	return container.Sealed(func() ([]byte, error) { return assets.ReadFile("assets/keeper") })()
}

// kept finds or writes the file, and opens it through a mount of its own.
func kept(program io.ReaderAt, whole fs.File) (*os.File, error) {
	st, err := whole.Stat()
	if err != nil {
		return nil, err
	}
	id, err := buildID(program)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(keeperDir, id)
	fd, err := trusted(path, st.Size())
	if errors.Is(err, fs.ErrNotExist) {
		if err := keep(path, whole); err != nil {
			return nil, err
		}
		fd, err = trusted(path, st.Size())
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	mount, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("mount of %q: %w", path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(mount)
		return nil, fmt.Errorf("make the mount of %q read-only: %w", path, err)
	}
	return os.NewFile(uintptr(mount), path), nil
}

// trusted opens the file if nobody but root can have written it.
func trusted(path string, size int64) (int, error) {
	var st unix.Stat_t
	if err := unix.Lstat(keeperDir, &st); err != nil {
		return -1, err
	}
	if st.Mode != unix.S_IFDIR|0o700 || st.Uid != 0 {
		return -1, fmt.Errorf("%q is not root's alone", keeperDir)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode != unix.S_IFREG|programMode || st.Uid != 0 || st.Size != size {
		unix.Close(fd)
		return -1, fmt.Errorf("%q is not what was written there", path)
	}
	return fd, nil
}

// keep writes the file whole or not at all.
func keep(path string, program io.Reader) error {
	if err := os.MkdirAll(keeperDir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(keeperDir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone by then, unless something failed
	_, err = io.Copy(f, program)
	err = errors.Join(err, f.Chmod(programMode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = forget(keeperDir, keptPrograms)
	}
	return err
}

// keptPrograms is how many versions of the keeper have a file: enough for those that are
// used in turns. Who runs one does not need its file.
const keptPrograms = 3

// forget removes all files of a directory but the newest.
func forget(dir string, most int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	written := map[string]time.Time{}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else forgets
		}
		if err != nil {
			return err
		}
		written[e.Name()] = info.ModTime()
	}
	names := slices.SortedFunc(maps.Keys(written), func(a, b string) int { return written[b].Compare(written[a]) })
	for _, old := range names[min(most, len(names)):] {
		if err := os.Remove(filepath.Join(dir, old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// buildID is what the linker writes at the beginning of a program: a hash of
// everything that it was made of.
func buildID(program io.ReaderAt) (string, error) {
	head := make([]byte, 16<<10)
	n, err := program.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	// A note: the sizes of name and content, type 4, the name, the content.
	at := bytes.Index(head[:n], []byte("\x04\x00\x00\x00Go\x00\x00"))
	if at < 4 {
		return "", errors.New("the keeper has no build ID")
	}
	id := head[at+8 : n]
	id = id[:min(int(binary.LittleEndian.Uint32(head[at-4:])), len(id), maxBuildID)]
	sum := sha256.Sum256(id)
	return hex.EncodeToString(sum[:]), nil
}

// maxBuildID is longer than any: some eighty bytes.
const maxBuildID = 256
