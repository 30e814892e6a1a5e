package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// localPlugin is upstream's name for volumes on the node's own disks.
const localPlugin = "local-volume"

// localMount is what a local volume's mount is made from.
type localMount struct {
	path     string
	options  []string
	readOnly bool
}

// local mounts a directory of this node, or the file system of a block device,
// below the pod's own directory, and gives its files to the pod's fsGroup first,
// unless another pod uses them.
func (v *Volumes) local(ctx context.Context, pod *corev1.Pod, pv *corev1.PersistentVolume, l localMount) (string, error) {
	attr, rest := attributes(l)
	dir := v.volumeDir(pod, localPlugin, pv.Name)
	if yes, err := isMount(dir); err == nil && yes {
		return dir, nil // by an earlier agent, or before another volume failed
	}
	leave, err := v.turns.take(ctx, l.path)
	if err != nil {
		return "", err
	}
	defer leave()
	if err := v.provide(pv); err != nil {
		return "", err
	}
	source, isDisk, err := openLocal(l.path)
	if err != nil {
		return "", &stepError{step: initialize, volume: pv.Name, err: err}
	}
	defer func() { source.Close() }()
	switch {
	case isDisk:
		mounted, err := v.disk(ctx, pv, l, rest)
		if err != nil {
			return "", &stepError{step: mountDevice, volume: pv.Name, err: err}
		}
		source.Close()
		source = mounted
	case len(rest) > 0:
		return "", fmt.Errorf("mount option %q is not supported for a directory", rest[0])
	}
	if err := v.own(ctx, pod, pv, source, l.readOnly); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("create mount point: %w", err)
	}
	if isDisk {
		if attr != (unix.MountAttr{}) {
			if err := unix.MountSetattr(int(source.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
				return "", fmt.Errorf("set options of the mount of %q: %w", l.path, err)
			}
		}
		if err := unix.MoveMount(int(source.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return "", fmt.Errorf("mount %q: %w", l.path, err)
		}
		return dir, nil
	}
	if err := unix.Mount(fdPath(source), dir, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("mount %q: %w", l.path, err)
	}
	if attr == (unix.MountAttr{}) {
		return dir, nil
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
		err = fmt.Errorf("set options of the mount of %q: %w", l.path, err)
		return "", errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return dir, nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// openLocal holds a volume's directory, or says that it is a disk: what it is then
// stays what is mounted.
func openLocal(path string) (f *os.File, isDisk bool, err error) {
	f, err = os.OpenFile(filepath.Join("/", path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("path %q does not exist", path)
	}
	if err != nil {
		return nil, false, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		return f, false, nil
	case kind(info.Mode()) == corev1.HostPathBlockDev:
		return f, true, nil
	default:
		err = fmt.Errorf("path %q is neither a directory nor a block device: only directory and block device are supported", path)
	}
	f.Close()
	return nil, false, err
}

// attributes are a mount's, by the names that mount(8) gives them; the rest are
// options of the file system.
func attributes(l localMount) (a unix.MountAttr, rest []string) {
	options := l.options
	if l.readOnly {
		options = append([]string{"ro"}, options...)
	}
	for _, o := range options {
		switch o {
		case "", "defaults", "bind", "rw", "suid", "dev", "exec", "async", "auto", "noauto", "_netdev", "nofail": // what is so anyway; rw never undoes ro
		case "ro":
			a.Attr_set |= unix.MOUNT_ATTR_RDONLY
		case "nosuid":
			a.Attr_set |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			a.Attr_set |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			a.Attr_set |= unix.MOUNT_ATTR_NOEXEC
		case "nosymfollow":
			a.Attr_set |= unix.MOUNT_ATTR_NOSYMFOLLOW
		case "nodiratime":
			a.Attr_set |= unix.MOUNT_ATTR_NODIRATIME
		case "noatime":
			a.Attr_set, a.Attr_clr = a.Attr_set&^unix.MOUNT_ATTR__ATIME|unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME
		case "relatime":
			a.Attr_set, a.Attr_clr = a.Attr_set&^unix.MOUNT_ATTR__ATIME, unix.MOUNT_ATTR__ATIME
		case "strictatime":
			a.Attr_set, a.Attr_clr = a.Attr_set&^unix.MOUNT_ATTR__ATIME|unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME
		default:
			rest = append(rest, o)
		}
	}
	return a, rest
}

// alreadyMounted is the reason of upstream's event about a volume with two groups.
const alreadyMounted = "AlreadyMountedVolume"

// own gives a volume's files to the pod's fsGroup. While another pod uses the
// volume its files stay as they are, and a group that differs is told of.
func (v *Volumes) own(ctx context.Context, pod *corev1.Pod, pv *corev1.PersistentVolume, source *os.File, readOnly bool) error {
	gid, ok := fsGroup(pod)
	if !ok {
		return nil
	}
	info, err := source.Stat()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return fmt.Errorf("failed to check fsGroup: %w", err)
	}
	if v.shared(info) {
		if int64(st.Gid) != gid {
			v.cfg.Warn(pod, alreadyMounted, fmt.Sprintf(
				"The requested fsGroup is %d, but the volume %s has GID %d. The volume may not be shareable.", gid, pv.Name, st.Gid))
		}
		return nil
	}
	if readOnly {
		return nil
	}
	policy := pod.Spec.SecurityContext.FSGroupChangePolicy
	if policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch && int64(st.Gid) == gid && groupMayUse(info.Mode()) {
		return nil
	}
	return giveAll(ctx, source, int(gid))
}

// What a group that files are given to may do with them: upstream's bits.
const (
	groupFile = 0o660
	groupDir  = groupFile | 0o110 | fs.ModeSetgid
)

func groupMayUse(m fs.FileMode) bool { return m&groupDir == groupDir }

// shared reports whether a pod has this very directory mounted as its volume.
func (v *Volumes) shared(source fs.FileInfo) bool {
	points, err := filepath.Glob(filepath.Join(v.cfg.Root, "*", "volumes", "kubernetes.io~"+localPlugin, "*"))
	if err != nil {
		return false // the pattern is well-formed unless the root is not
	}
	for _, p := range points {
		if info, err := os.Lstat(p); err == nil && os.SameFile(info, source) {
			return true
		}
	}
	return false
}

// giveAll gives everything in a directory to a group, the directory itself last:
// that it is right then says that all is (OnRootMismatch). Nothing outside the
// directory is touched, whatever links it holds.
func giveAll(ctx context.Context, dir *os.File, gid int) error {
	root, err := os.OpenRoot(fdPath(dir))
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || path == "." {
			return err
		}
		return give(root, path, gid)
	})
	if err == nil {
		err = give(root, ".", gid)
	}
	if err != nil {
		return fmt.Errorf("applyFSGroup failed: %w", err)
	}
	return nil
}

// give hands one file to a group; what vanishes meanwhile needs nothing.
func give(root *os.Root, path string, gid int) error {
	info, err := root.Lstat(path)
	if err != nil {
		return present(err)
	}
	if err := root.Lchown(path, -1, gid); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return present(err)
	}
	bits := fs.FileMode(groupFile)
	if info.IsDir() {
		bits = groupDir
	}
	return present(root.Chmod(path, info.Mode()|bits))
}

func present(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// turns lets one at a time work on a path.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{}
}

// take waits for its turn; the caller must call leave.
func (t *turns) take(ctx context.Context, path string) (leave func(), err error) {
	for {
		t.mu.Lock()
		other := t.taken[path]
		if other == nil {
			break
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer t.mu.Unlock()
	if t.taken == nil {
		t.taken = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	t.taken[path] = mine
	return func() {
		t.mu.Lock()
		delete(t.taken, path)
		t.mu.Unlock()
		close(mine)
	}, nil
}
