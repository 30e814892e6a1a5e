package volume

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Limits of what is done to a disk before it is mounted.
const (
	// diskLook bounds the look at what a disk holds, and diskWork making a file
	// system on it or mending one.
	diskLook = time.Minute
	diskWork = time.Hour
	// maxToolWords bounds what is kept of what a program prints, in bytes: the last.
	maxToolWords = 4 << 10
	// maxKernelWords is how many messages of the kernel are told about a mount.
	maxKernelWords = 4
)

// defaultFormat is the file system that a disk gets which has none, upstream's.
const defaultFormat = "ext4"

// partitioned stands for the format of a disk that is divided: nobody formats it.
const partitioned = "unknown data, probably partitions"

// disk mounts the file system of a block device, nowhere yet: whoever has the file
// has the mount. A disk that holds nothing gets a file system first, and one that
// has one is checked, unless somebody uses it. It never formats what holds anything
// that blkid knows.
func (v *Volumes) disk(ctx context.Context, pv *corev1.PersistentVolume, l localMount, options []string) (*os.File, error) {
	kind := defaultFormat
	if f := pv.Spec.Local.FSType; f != nil && *f != "" {
		kind = *f
	}
	if strings.ContainsAny(kind, "/\x00") {
		return nil, fmt.Errorf("fsType %q is no name of a file system", kind)
	}
	device, err := filepath.EvalSymlinks(filepath.Join("/", l.path))
	if err != nil {
		return nil, err
	}
	readOnly := l.readOnly || slices.Contains(l.options, "ro")
	// What has begun is not broken off: half a file system helps nobody.
	err = v.disks.do(ctx, device, func() error { return readyDisk(device, kind, readOnly) })
	if err == nil {
		var mounted *os.File
		if mounted, err = mountDisk(device, kind, options); err == nil {
			return mounted, nil
		}
		if has, e := formatOf(device); e == nil && has != kind {
			err = fmt.Errorf("%w: the disk holds %s", err, has)
		}
	}
	return nil, fmt.Errorf("local: failed to mount device %s (fstype: %s): %w", device, kind, err)
}

// readyDisk sees to it that a disk has a sound file system.
func readyDisk(device, kind string, readOnly bool) error {
	has, err := formatOf(device)
	switch {
	case err != nil:
		return fmt.Errorf("failed to get disk format of disk %s: %w", device, err)
	case has == "" && readOnly:
		return fmt.Errorf("cannot mount unformatted disk %s as we are manipulating it in read-only mode", device)
	case has == "":
		return format(device, kind)
	case has == partitioned:
		return fmt.Errorf("disk %s holds %s: it is neither formatted nor mounted", device, has)
	case readOnly:
		return nil
	}
	busy, err := diskMounted(device)
	if busy || err != nil {
		return err
	}
	return mend(device)
}

// formatOf is what blkid finds on a disk, "" for nothing at all.
func formatOf(device string) (string, error) {
	// blkid says of a disk that it can't read the same as of an empty one.
	f, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 4096)); err != nil {
		return "", fmt.Errorf("read its beginning: %w", err)
	}
	out, code, err := tool(diskLook, "blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device)
	if code == 2 { // none of what was asked for
		return "", nil
	}
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		found[name] = value
	}
	if found["PTTYPE"] != "" {
		return partitioned, nil
	}
	if found["TYPE"] == "" {
		return "", fmt.Errorf("blkid says neither that it is empty nor what it holds: %q", out)
	}
	return found["TYPE"], nil
}

// format makes a file system on a disk, with upstream's arguments.
func format(device, kind string) error {
	var args []string
	switch kind {
	case "ext3", "ext4":
		args = []string{"-F", "-m0"} // don't ask; nothing is reserved for root
	case "xfs":
		args = []string{"-f"}
	}
	out, _, err := tool(diskWork, "mkfs."+kind, append(args, device)...)
	if err != nil {
		return fmt.Errorf("format of disk %q failed: type:(%q) errcode:(%w) output:(%s)", device, kind, err, out)
	}
	return nil
}

// fsckUncorrected is fsck's exit code for errors that it could not correct. One for
// those that it has corrected is no failure, nor is that there is no fsck.
const fsckUncorrected = 4

// mend has fsck check a disk's file system, and correct what it safely can.
func mend(device string) error {
	out, code, _ := tool(diskWork, "fsck", "-a", device) // the code says what matters
	if code == fsckUncorrected {
		return fmt.Errorf("'fsck' found errors on device %s but could not correct them: %s", device, out)
	}
	return nil
}

// tool runs a program of the host, and returns the last of what it printed and the
// code it ended with; -1 when it did not, or isn't there.
func tool(limit time.Duration, name string, args ...string) (out string, code int, err error) {
	path, err := program(name)
	if err != nil {
		return "", -1, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("it did not end in %s", limit))
	defer cancel()
	var words lastWords
	c := exec.CommandContext(ctx, path, args...)
	c.Stdout, c.Stderr = &words, &words
	c.Env = append(os.Environ(), "LC_ALL=C")
	c.WaitDelay = time.Second
	err = c.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	code = -1
	if c.ProcessState != nil {
		code = c.ProcessState.ExitCode()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(words.b), "?")), code, err
}

// program finds a program, also where a service's PATH does not lead.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// lastWords keeps the last of what is written to it.
type lastWords struct{ b []byte }

// Write implements io.Writer.
func (w *lastWords) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	if over := len(w.b) - maxToolWords; over > 0 {
		w.b = append(w.b[:0], w.b[over:]...)
	}
	return len(p), nil
}

// diskMounted says whether a disk's file system is mounted anywhere that we see.
func diskMounted(device string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return false, fmt.Errorf("look at disk %q: %w", device, err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 0; lines.Scan() && n < maxMounts; n++ {
		if fields := strings.SplitN(lines.Text(), " ", 4); len(fields) > 2 && fields[2] == number {
			return true, nil
		}
	}
	return false, lines.Err()
}

// mountDisk mounts a disk's file system, nowhere yet. A disk that can't be written
// is mounted for reading, as mount(8) does.
func mountDisk(device, kind string, options []string) (*os.File, error) {
	f, err := tryMount(device, kind, options)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		f, err = tryMount(device, kind, append(slices.Clone(options), "ro"))
	}
	return f, err
}

func tryMount(device, kind string, options []string) (*os.File, error) {
	fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("the node's kernel does not know the file system %q", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare to mount: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(fd, "source", device); err != nil {
		return nil, told(fd, err)
	}
	for _, o := range options {
		key, value, ok := strings.Cut(o, "=")
		if ok {
			err = unix.FsconfigSetString(fd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return nil, fmt.Errorf("mount option %q: %w", o, told(fd, err))
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, told(fd, err)
	}
	mounted, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, told(fd, err)
	}
	return os.NewFile(uintptr(mounted), device), nil
}

// told adds to an error what the kernel says of it.
func told(fd int, err error) error {
	var words [][]byte
	line := make([]byte, 1024)
	for range maxKernelWords {
		n, e := unix.Read(fd, line)
		if e != nil || n <= 0 {
			break
		}
		words = append(words, bytes.TrimSpace(bytes.Clone(line[:n])))
	}
	if len(words) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, bytes.Join(words, []byte("; ")))
}
