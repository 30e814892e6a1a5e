package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// A checkpoint holds what is inside of a container. What it has from outside, bind
// mounts and descriptors and namespaces of its sandbox, gets a label there, and whoever
// restores it says what takes the label's place.

// maxMountinfo bounds a process's mountinfo: the kernel allows 100000 mounts.
const maxMountinfo = 32 << 20

// mounted is one line of a mountinfo.
type mounted struct {
	id int
	// dev and root say what is mounted: the number of a filesystem, and a path there.
	dev, root, point, fstype string
	// flags are those of restrictions that it has.
	flags uintptr
}

// restrictions are the flags of a mount that take something away from who uses it.
const restrictions = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// has says whether a mount has all of some restrictions.
func (m *mounted) has(flags uintptr) bool { return m.flags&flags == flags }

// flagsOf reads the options of a mount, as far as they are restrictions.
func flagsOf(options string) (flags uintptr) {
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "ro":
			flags |= unix.MS_RDONLY
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		case "noexec":
			flags |= unix.MS_NOEXEC
		}
	}
	return flags
}

// mountsOf reads what a process has mounted, in order.
func mountsOf(pid int) ([]mounted, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMountinfo(f)
}

// parseMountinfo reads proc_pid_mountinfo(5).
func parseMountinfo(r io.Reader) ([]mounted, error) {
	var out []mounted
	from := &io.LimitedReader{R: r, N: maxMountinfo + 1}
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		sep := 6
		for sep < len(f) && f[sep] != "-" {
			sep++
		}
		if sep+1 >= len(f) {
			return nil, fmt.Errorf("mountinfo: %q is no mount", lines.Text())
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %q is no mount", lines.Text())
		}
		out = append(out, mounted{id, f[2], unescape(f[3]), unescape(f[4]), f[sep+1], flagsOf(f[5])})
	}
	if from.N == 0 { // whoever judges by it must see all
		return nil, fmt.Errorf("mountinfo has more than %d bytes", maxMountinfo)
	}
	return out, lines.Err()
}

// unescape undoes the kernel's \040 and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
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

// fromOutside says whether a mount of a plan shows something of the host's: that is
// not in a checkpoint.
func fromOutside(m *plan.Mount) bool {
	return !m.Remount && (m.Bind || m.Type == "cgroup" || m.Type == "cgroup2")
}

// outsideMounts are criu's words for the mounts that a process has from outside: where
// each is, and as label the target that the plan has for it. What the image makes of
// that target, by a symbolic link, is found in the container's root.
func outsideMounts(pid int, mounts []plan.Mount) ([]string, error) {
	info, err := mountsOf(pid)
	if err != nil {
		return nil, err
	}
	points := map[int]string{}
	for _, m := range info {
		points[m.id] = m.point
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("root of process %d: %w", pid, err)
	}
	defer unix.Close(root)
	var out []string
	for i := range mounts {
		m := &mounts[i]
		if !fromOutside(m) {
			continue
		}
		id, err := mountAt(root, m.Target)
		if err != nil {
			return nil, fmt.Errorf("mount on %q: %w", m.Target, err)
		}
		point, ok := points[id]
		if !ok || strings.ContainsAny(point+m.Target, "[]\n") {
			return nil, fmt.Errorf("mount on %q: cannot be told to criu", m.Target)
		}
		out = append(out, fmt.Sprintf("mnt[%s]:%s", point, m.Target))
	}
	return out, nil
}

// mountAt is the number of the mount that is at a path below root. Nothing that the
// container makes leads out.
func mountAt(root int, path string) (int, error) {
	fd, err := lookUp(root, path, unix.O_PATH)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return mountOf("self", fd)
}

// mountOf is the number of the mount that a descriptor of a process is on.
func mountOf(pid string, fd int) (int, error) {
	text, err := readSmall(fmt.Sprintf("/proc/%s/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errors.New("the kernel does not tell which mount a descriptor is on")
}

// descriptor is what criu calls one of a process's descriptors from outside: a pipe by
// its number, a file by its mount and inode. What is inside, or closed, has no name.
type descriptor struct {
	name string
	// file says that criu must be told of it when it dumps; it takes any pipe.
	file bool
}

// outsideDescriptors are the first three of a process.
func outsideDescriptors(pid int) (out [3]descriptor, err error) {
	info, err := mountsOf(pid)
	if err != nil {
		return out, err
	}
	inside := map[int]bool{}
	for _, m := range info {
		inside[m.id] = true
	}
	for fd := range out {
		path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
		link, err := os.Readlink(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // closed
		}
		if err != nil {
			return out, err
		}
		if strings.HasPrefix(link, "pipe:[") {
			out[fd].name = link
			continue
		}
		if !filepath.IsAbs(link) {
			continue // a socket: criu knows what to say
		}
		mount, err := mountOf(strconv.Itoa(pid), fd)
		if err != nil {
			return out, err
		}
		if inside[mount] {
			continue
		}
		if out[fd], err = fileAt(path, mount); err != nil {
			return out, err
		}
	}
	return out, nil
}

func fileAt(path string, mount int) (descriptor, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return descriptor{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return descriptor{name: fmt.Sprintf("file[%x:%x]", mount, st.Ino), file: true}, nil
}

// ourNamespaces has this thread's: the first of the process, which "self" would show, may
// be one that a goroutine has taken elsewhere and left there for good.
const ourNamespaces = "/proc/thread-self/ns/"

// ownNamespace says whether a process has a namespace that this process is not in, and
// the namespace's number.
func ownNamespace(pid int, kind string) (uint64, bool, error) {
	var his, ours unix.Stat_t
	path := fmt.Sprintf("/proc/%d/ns/%s", pid, kind)
	if err := unix.Stat(path, &his); err != nil {
		return 0, false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := unix.Stat(ourNamespaces+kind, &ours); err != nil {
		return 0, false, err
	}
	return his.Ino, his.Ino != ours.Ino || his.Dev != ours.Dev, nil
}
