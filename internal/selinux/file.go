package selinux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Attribute is the extended attribute that a file's label is in.
const Attribute = "security.selinux"

// LabelFile gives a file its label, and does not follow a symbolic link. A file system
// without labels is no error.
func LabelFile(path, label string) error {
	return failed(path, unix.Lsetxattr(path, Attribute, []byte(label), 0))
}

func failed(path string, err error) error {
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return fmt.Errorf("label %q: %w", path, err)
}

// Relabel gives a file, or a directory and everything below it, a label. Path is followed
// if it is a symbolic link, those below are not: whoever may write there must not lead
// the hand that labels elsewhere. The path itself comes last. A file system without labels
// is no error, a directory of the system's own is.
func Relabel(ctx context.Context, path, label string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("relabel %q: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return relabelOpen(ctx, f, label)
}

// relabelOpen is Relabel of what a path has led to. That is what is judged, too: whoever
// may write above the path may have it lead elsewhere at any time.
func relabelOpen(ctx context.Context, f *os.File, label string) error {
	real, err := os.Readlink(handle(f))
	if err != nil {
		return fmt.Errorf("relabel %q: %w", f.Name(), err)
	}
	if ofSystem(real) {
		return fmt.Errorf("relabel %q: it is the system's own", real)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("relabel %q: %w", real, err)
	}
	if !info.IsDir() {
		return setByFD(f, label)
	}
	root, err := os.OpenRoot(handle(f))
	if err != nil {
		return fmt.Errorf("relabel %q: %w", real, err)
	}
	defer root.Close()
	if err := each(ctx, root, func(f *os.File) error { return setByFD(f, label) }); err != nil {
		return fmt.Errorf("relabel %q: %w", real, err)
	}
	return nil
}

// handle is a path of what is open, wherever that is by now.
func handle(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// each does something to everything below a directory and to it last of all.
func each(ctx context.Context, root *os.Root, do func(*os.File) error) error {
	one := func(path string) error {
		f, err := root.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return present(err)
		}
		defer f.Close()
		return do(f)
	}
	err := fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || path == "." {
			return present(err)
		}
		return one(path)
	})
	if err != nil {
		return err
	}
	return one(".")
}

// setByFD labels what is open, be it a symbolic link itself.
func setByFD(f *os.File, label string) error {
	return failed(f.Name(), unix.Setxattr(handle(f), Attribute, []byte(label), 0))
}

// present forgives what vanishes meanwhile.
func present(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ofSystem says that a path is of the host's system, with more in it than anybody
// can have meant to give to a container.
func ofSystem(path string) bool {
	system := strings.Fields(`/ /bin /boot /dev /etc /etc/passwd /etc/pki /etc/shadow /home /lib /lib64 /media /opt /proc
		/root /run /sbin /srv /sys /tmp /usr /var /var/lib /var/log /var/run /var/tmp`)
	return slices.Contains(system, path) || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/sys/")
}
