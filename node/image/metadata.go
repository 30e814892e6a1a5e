package image

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// metadata sets, of what is no file, owner, mode, extended attributes and times, in the order in
// which one does not undo the other: chown clears set-uid, writing xattrs needs
// the owner, times come last.
func (x *extractor) metadata(h *tar.Header) error {
	dir, err := x.enter(path.Dir(h.Name))
	if err != nil {
		return err
	}
	base := path.Base(h.Name)
	if err := dir.Lchown(base, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := dir.Chmod(base, modeOf(h.Mode)); err != nil {
			return err
		}
		if err := x.xattrs(h); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeDir {
		return nil // finishDirs
	}
	return x.times(h)
}

// describeFile is metadata for a file that is open, in the same order.
func describeFile(f *os.File, h *tar.Header) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return &fs.PathError{Op: "chown", Path: h.Name, Err: err}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil { //nolint:gosec // twelve bits
		return &fs.PathError{Op: "chmod", Path: h.Name, Err: err}
	}
	if err := setXattrs(f, h); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(fd, "", timesOf(h), unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "utimensat", Path: h.Name, Err: err}
	}
	return nil
}

// timesOf are an entry's, of access and change.
func timesOf(h *tar.Header) []unix.Timespec {
	accessed := h.AccessTime
	if accessed.IsZero() {
		accessed = h.ModTime
	}
	return []unix.Timespec{unix.NsecToTimespec(accessed.UnixNano()), unix.NsecToTimespec(h.ModTime.UnixNano())}
}

// xattrs sets the extended attributes of directories.
func (x *extractor) xattrs(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir || len(h.PAXRecords) == 0 {
		return nil
	}
	d, err := x.root.Open(h.Name)
	if err != nil {
		return err
	}
	defer d.Close()
	return setXattrs(d, h)
}

// setXattrs sets the extended attributes of an open file or directory. Those of
// overlayfs itself never come from a layer, nor do labels of SELinux, which are this
// host's to give; a file system without the attribute's class is no reason to refuse
// the image.
func setXattrs(f *os.File, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattrPrefix)
		if !ok || name == selinux.Attribute || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return &fs.PathError{Op: "setxattr " + name, Path: h.Name, Err: err}
		}
	}
	return nil
}

func (x *extractor) times(h *tar.Header) error {
	ts := timesOf(h)
	if h.Name == "." {
		d, err := x.root.Open(".")
		if err != nil {
			return err
		}
		defer d.Close()
		return unix.UtimesNanoAt(int(d.Fd()), "", ts, unix.AT_EMPTY_PATH)
	}
	return x.at(h.Name, func(dir int, base string) error {
		return unix.UtimesNanoAt(dir, base, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// finishDirs sets the directories' times, deepest first. A directory that a
// later entry replaced is passed over.
func (x *extractor) finishDirs() error {
	x.leave()
	for i := len(x.dirs) - 1; i >= 0; i-- {
		h := x.dirs[i]
		info, err := x.root.Lstat(h.Name)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !info.IsDir()) {
			continue
		}
		if err != nil {
			return err
		}
		if err := x.times(h); err != nil {
			return err
		}
	}
	return nil
}

// modeOf turns Unix mode bits into Go's.
func modeOf(mode int64) os.FileMode {
	m := os.FileMode(mode & 0o777)
	if mode&unix.S_ISUID != 0 {
		m |= os.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= os.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}

// syncFilesystem flushes the whole file system that holds dir.
func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
