package container

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// criu makes a watch of inotify anew by path, or by file handle, and by handle any file of
// a filesystem can be had of which the container has some part mounted: the host's own,
// mostly. Who watches a directory learns the names in it.

// maxWatches bounds what is read of the watches of one descriptor.
const maxWatches = 16 << 20

// watch is one line of proc_pid_fdinfo(5) of an inotify descriptor.
type watch struct {
	dev    string // as mountinfo has it
	inode  uint64
	handle unix.FileHandle
}

// watches says whether everything that an inotify descriptor watches is something that
// the container sees.
func (j *judged) watches(fdinfo string) (bool, error) {
	f, err := os.Open(fdinfo)
	if err != nil {
		return false, err
	}
	defer f.Close()
	text, err := readWhole(f, maxWatches)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "inotify ") {
			continue
		}
		w, err := parseWatch(line)
		if err != nil {
			return false, err
		}
		if !j.sees(w) {
			return false, nil
		}
	}
	return true, nil
}

// parseWatch reads a line such as "inotify wd:1 ino:3f sdev:800001 mask:2 ignored_mask:0
// fhandle-bytes:8 fhandle-type:1 f_handle:3f00000000000000"; a kernel without file
// handles leaves the last three out.
func parseWatch(line string) (w watch, err error) {
	have := map[string]string{}
	for field := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(field, ":")
		have[key] = value
	}
	const minorBits = 20 // of the kernel's own device numbers
	dev, err1 := strconv.ParseUint(have["sdev"], 16, 32)
	inode, err2 := strconv.ParseUint(have["ino"], 16, 64)
	if err := errors.Join(err1, err2); err != nil {
		return w, fmt.Errorf("%q is no watch: %w", strings.TrimSpace(line), err)
	}
	w = watch{dev: fmt.Sprintf("%d:%d", dev>>minorBits, dev&(1<<minorBits-1)), inode: inode}
	if have["f_handle"] == "" {
		return w, nil
	}
	kind, err1 := strconv.ParseInt(have["fhandle-type"], 16, 32)
	size, err2 := strconv.ParseUint(have["fhandle-bytes"], 16, 32)
	b, err3 := hex.DecodeString(have["f_handle"])
	if err := errors.Join(err1, err2, err3); err != nil || uint64(len(b)) < size {
		return w, fmt.Errorf("%q has no file handle: %w", strings.TrimSpace(line), err)
	}
	w.handle = unix.NewFileHandle(int32(kind), b[:size])
	return w, nil
}

// sees says whether a watched file is on a filesystem that is mounted as a whole, or is
// found where the kernel says that it is, from the container's root. A file of which
// it cannot say that is not seen.
func (j *judged) sees(w watch) bool {
	for _, m := range j.at {
		if m.dev == w.dev && m.root == "/" {
			return true
		}
	}
	for _, m := range j.at {
		if m.dev == w.dev && j.seesBelow(m.point, w) {
			return true
		}
	}
	return false
}

// seesBelow is sees by one mount, of a part of a filesystem.
func (j *judged) seesBelow(point string, w watch) bool {
	at, err := lookUp(j.root, point, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(at)
	var root, is, there unix.Stat_t
	if unix.Fstat(at, &root) == nil && root.Ino == w.inode {
		return true
	}
	if w.handle.Size() == 0 || root.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false
	}
	mount, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(mount)
	fd, err := unix.OpenByHandleAt(mount, w.handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false
	}
	seen, err := lookUp(j.root, path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return false
	}
	defer unix.Close(seen)
	return unix.Fstat(fd, &is) == nil && unix.Fstat(seen, &there) == nil && is.Ino == there.Ino && is.Dev == there.Dev
}
