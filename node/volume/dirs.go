package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

// emptyDir is a directory of the pod's own: on disk, a tmpfs, or huge pages. Once it is there its
// owner and mode are the pod's to change.
func (v *Volumes) emptyDir(pod *corev1.Pod, vol *corev1.Volume, facts downward.Facts) (string, error) {
	dir := v.volumeDir(pod, "empty-dir", vol.Name)
	switch vol.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
		return dir, makeDir(pod, dir)
	case corev1.StorageMediumMemory:
		return dir, v.mountTmpfs(pod, dir, memorySize(vol, facts))
	}
	if isHuge(vol.EmptyDir.Medium) {
		return dir, mountHuge(pod, dir, vol.EmptyDir.Medium)
	}
	return "", fmt.Errorf("unknown storage medium %q", vol.EmptyDir.Medium)
}

// makeDir makes a volume's root on disk, unless it is there: open to every user, and
// the pod's fsGroup's, with the set-group-id bit so that new files inherit it. It
// appears as a whole.
func makeDir(pod *corev1.Pod, dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made := filepath.Join(filepath.Dir(dir), ".new-"+filepath.Base(dir)) // no volume's name
	if err := os.MkdirAll(made, 0o750); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	mode := fs.FileMode(0o777)
	if gid, ok := fsGroup(pod); ok {
		mode |= fs.ModeSetgid
		if err := os.Chown(made, -1, int(gid)); err != nil {
			return fmt.Errorf("give %q to group %d: %w", dir, gid, err)
		}
	}
	if err := os.Chmod(made, mode); err != nil {
		return fmt.Errorf("open directory to every user: %w", err)
	}
	if err := os.Rename(made, dir); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	return nil
}

// memorySize is the least of what is given of the volume's limit, the memory that the
// pod may have, and what all pods of the node may have together: upstream's
// SizeMemoryBackedVolumes. 0 leaves the kernel's default.
func memorySize(vol *corev1.Volume, facts downward.Facts) int64 {
	size := facts.Allocatable.Memory().Value()
	limits := []int64{facts.MemoryLimit}
	if l := vol.EmptyDir.SizeLimit; l != nil {
		limits = append(limits, l.Value())
	}
	for _, l := range limits {
		if l > 0 && (size == 0 || l < size) {
			size = l
		}
	}
	return size
}

// mountTmpfs mounts a tmpfs at dir unless there is one already: open to every user,
// who may delete nobody's files but their own, and the pod's fsGroup's. What is in it
// never goes to swap where the kernel can see to that (Linux 6.4, and not in a user
// namespace), which the first mount finds out.
func (v *Volumes) mountTmpfs(pod *corev1.Pod, dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if yes, err := isMount(dir); err != nil || yes {
		return err
	}
	opts := "mode=1777"
	if gid, ok := fsGroup(pod); ok {
		opts = "mode=3777,gid=" + strconv.FormatInt(gid, 10)
	}
	if size > 0 {
		opts += ",size=" + strconv.FormatInt(size, 10)
	}
	mount := func(opts string) error { return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, opts) }
	err := error(unix.EINVAL)
	if !v.swaps.Load() {
		err = mount(opts + ",noswap")
	}
	if errors.Is(err, unix.EINVAL) {
		if err = mount(opts); err == nil && v.swaps.CompareAndSwap(false, true) {
			v.cfg.Log.Warn("the kernel can't keep volumes in memory from being swapped out")
		}
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs at %q: %w", dir, err)
	}
	return nil
}

// isMount reports whether dir is the root of a mount. It asks no server.
func isMount(dir string) (bool, error) {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, 0, &stat)
	if err != nil {
		return false, fmt.Errorf("stat %q: %w", dir, err)
	}
	return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

func fsGroup(pod *corev1.Pod) (int64, bool) {
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		return *sc.FSGroup, true
	}
	return 0, false
}

// hostPath checks, and for the OrCreate types makes, a path of the host.
func hostPath(src *corev1.HostPathVolumeSource) error {
	want := corev1.HostPathUnset
	if src.Type != nil {
		want = *src.Type
	}
	switch want {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		// Without a type nothing is checked; what is not there, the engines that
		// people know create as a directory.
		if _, err := os.Stat(src.Path); errors.Is(err, fs.ErrNotExist) {
			return os.MkdirAll(src.Path, 0o755)
		}
		if want == corev1.HostPathUnset {
			return nil
		}
	case corev1.HostPathFileOrCreate:
		if err := createFile(src.Path); err != nil {
			return err
		}
	}
	word := hostPathWords[want]
	if word == "" {
		return fmt.Errorf("%s is an invalid volume type", want)
	}
	is, err := kindOf(src.Path)
	switch {
	case err != nil:
		return fmt.Errorf("hostPath type check failed, %s is not a %s, unable to determine its type: %w", src.Path, word, err)
	case hostPathWords[is] != word:
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", src.Path, word, is)
	}
	return nil
}

func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create host file: %w", err)
	}
	return f.Close()
}

var hostPathWords = map[corev1.HostPathType]string{
	corev1.HostPathDirectory: "directory", corev1.HostPathDirectoryOrCreate: "directory",
	corev1.HostPathFile: "file", corev1.HostPathFileOrCreate: "file",
	corev1.HostPathSocket: "socket file", corev1.HostPathCharDev: "character device", corev1.HostPathBlockDev: "block device",
}

// kindOf says what a path of the host leads to. The texts are upstream's.
func kindOf(path string) (corev1.HostPathType, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("path %q does not exist", path)
	}
	if err != nil {
		return "", err
	}
	if is := kind(info.Mode()); is != "" {
		return is, nil
	}
	return "", errors.New("only recognise file, directory, socket, block device and character device")
}

// kind is the type of host path that a mode tells, "" for one that there is none of.
func kind(mode fs.FileMode) corev1.HostPathType {
	switch {
	case mode.IsDir():
		return corev1.HostPathDirectory
	case mode.IsRegular():
		return corev1.HostPathFile
	case mode&fs.ModeSocket != 0:
		return corev1.HostPathSocket
	case mode&fs.ModeCharDevice != 0:
		return corev1.HostPathCharDev
	case mode&fs.ModeDevice != 0:
		return corev1.HostPathBlockDev
	}
	return ""
}

// Remove unmounts whatever is mounted under the pod's directory, deepest first,
// and deletes the directory. It never crosses into a mount that it could not
// remove: then it fails and nothing below that mount is touched.
func (v *Volumes) Remove(uid string) error {
	begin := time.Now()
	err := v.remove(uid)
	v.unseen(types.UID(uid), begin, err)
	return err
}

func (v *Volumes) remove(uid string) error {
	dir := v.Dir(uid)
	if dir == v.cfg.Root {
		return fmt.Errorf("remove volumes of pod %q: not a pod's directory", uid)
	}
	v.tokens.forget(uid)
	v.lasts.forget(uid)
	v.open.forget(uid)
	if busy := v.slow.under(dir); busy != "" {
		return fmt.Errorf("remove volumes of pod %q: %q is still being mounted", uid, busy)
	}
	mounts, err := mountsUnder(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := alone(m); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %q: %w", m, err)
		}
	}
	left, err := mountsUnder(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("remove volumes of pod %q: %d mounts remain, first %q", uid, len(left), left[0])
	}
	if err := removePoints(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %q: %w", dir, err)
	}
	return nil
}

// removePoints removes the directories that others' files are mounted on, as
// empty ones and nothing else: were something mounted there in this very moment,
// the kernel would refuse, where a deletion of the tree would take its files.
func removePoints(dir string) error {
	for _, plugin := range []string{localPlugin, nfsPlugin} {
		home := filepath.Join(dir, "volumes", "kubernetes.io~"+plugin)
		entries, err := os.ReadDir(home)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list mount points in %q: %w", home, err)
		}
		for _, e := range entries {
			if err := os.Remove(filepath.Join(home, e.Name())); err != nil {
				return fmt.Errorf("remove mount point: %w", err)
			}
		}
	}
	return nil
}

// Orphans are the UIDs that have a directory here and aren't known.
func (v *Volumes) Orphans(known func(uid string) bool) ([]string, error) {
	entries, err := os.ReadDir(v.cfg.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pods' directories: %w", err)
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() && !known(e.Name()) {
			list = append(list, filepath.Base(e.Name()))
		}
	}
	return list, nil
}
