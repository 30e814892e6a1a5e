// Package sealed holds programs in memory that nobody can change any more, for whoever
// executes them.
package sealed

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Program makes a file without a name in any directory, has write fill it, and seals it.
// The file is closed on exec; whoever executes it does so by its descriptor.
func Program(name string, write func(io.Writer) error) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := write(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	err = unheld(func() error {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("seal: %w", err), f.Close())
	}
	return f, nil
}

// tries is how often a file is sealed that the kernel itself has in its hands.
const tries = 10

// unheld tries again what fails because the kernel is moving pages of the file, as it
// does when memory is short: it waits for itself, for a seventh of a second, and gives up.
func unheld(seal func() error) (err error) {
	for range tries {
		if err = seal(); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}
