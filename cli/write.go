package cli

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// writeTo writes a file, or standard output for "-". The file is written beside its place,
// and has its name when it is whole: what was there before stays until then. What is no
// file, a device or a pipe, is written to as it is.
func writeTo(dest string, stdout io.Writer, mode fs.FileMode, write func(io.Writer) error) (err error) {
	if dest == "-" {
		return write(stdout)
	}
	info, err := os.Stat(dest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular() || strings.HasPrefix(filepath.Clean(dest), "/dev/"): // such as /dev/stdout
		return writeOnto(dest, write)
	default:
		if dest, err = filepath.EvalSymlinks(dest); err != nil {
			return err
		}
	}
	aside := filepath.Join(filepath.Dir(dest), "."+filepath.Base(dest)+"."+rand.Text()[:8]+atomicfile.Suffix)
	f, err := os.OpenFile(aside, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(aside)
		}
	}()
	if err := likeBefore(f, info); err != nil {
		return err
	}
	if err := write(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(aside, dest)
}

// likeBefore gives a file the owner and the mode of the one whose place it takes, if any.
func likeBefore(f *os.File, before fs.FileInfo) error {
	if before == nil {
		return nil
	}
	if st, ok := before.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(before.Mode().Perm())
}

// writeOnto writes to what is there.
func writeOnto(dest string, write func(io.Writer) error) error {
	f, err := os.OpenFile(dest, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
