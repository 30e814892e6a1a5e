// Package atomicfile writes files that are either wholly there or not at all:
// a reader, and a machine that lost its power, sees the old content or the new
// one and never a part. State that a component must find again after a crash
// is kept this way.
package atomicfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Suffix marks a file that was being written when its writer died. Readers of
// a directory skip such names; Clean removes them.
const Suffix = ".tmp~"

// Write replaces path with data and returns when both are on the disk: the
// bytes are written beside it, synced, renamed over it, and the directory is
// synced. The directory must exist. Concurrent writers of one path are safe:
// the last rename wins.
func Write(path string, data []byte, perm fs.FileMode) error {
	if err := replace(path, data, perm, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteSoon replaces path like Write, but waits for nothing: the bytes are sent on their
// way to the disk before the file has its name. A filesystem that keeps order, as Linux's
// ext4 does, has them there when anything is durable that was written after them. Until
// then a power cut may take the file back, or leave it with less than the bytes, so that
// whoever reads such files must be able to tell.
func WriteSoon(path string, data []byte, perm fs.FileMode) error {
	return replace(path, data, perm, send)
}

// WriteVolatile replaces path like Write, but leaves it to the kernel when the
// bytes reach the disk. It is for state that a reboot voids anyway: a reader
// still never sees a part, yet after a power cut the file may be empty.
func WriteVolatile(path string, data []byte, perm fs.FileMode) error {
	return replace(path, data, perm, func(*os.File) error { return nil })
}

// WriteJSON writes v as JSON with mode 0600, durably.
func WriteJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %q: %w", path, err)
	}
	return Write(path, data, 0o600)
}

// ReadJSON reads what WriteJSON wrote. A missing file is fs.ErrNotExist.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %q: %w", path, err)
	}
	return nil
}

// Remove deletes path durably. It succeeds when path is already gone.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Clean removes what dead writers left in dir. Call it before anybody writes
// there.
func Clean(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// temporary is the mode that os.CreateTemp gives.
const temporary fs.FileMode = 0o600

// replace writes beside path and renames; what is to be done for the disk comes between.
func replace(path string, data []byte, perm fs.FileMode, disk func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+Suffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if perm != temporary {
		if err := f.Chmod(perm); err != nil {
			return err
		}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := disk(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// send has the kernel begin to write a file to its disk: so the file has its place there,
// and is not one that is empty until the kernel thinks of it half a minute later.
func send(f *os.File) error {
	const begin = 2 // SYNC_FILE_RANGE_WRITE
	err := syscall.SyncFileRange(int(f.Fd()), 0, 0, begin)
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ESPIPE) {
		return nil // then it takes its time
	}
	return err
}

// SyncDir makes the names in a directory durable: what was created, renamed or
// removed there before the call survives a power cut after it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %q: %w", dir, err)
	}
	return nil
}
