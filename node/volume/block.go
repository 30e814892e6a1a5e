package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// devicesDir is where a pod's volumes are that are devices, upstream's name.
const devicesDir = "volumeDevices"

// mappedReason is that of upstream's event about a device that a pod has got.
const mappedReason = "SuccessfulMountVolume"

func isBlock(pv *corev1.PersistentVolume) bool {
	return pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// device makes a block device of this node available to a pod as what it is: its
// node, mounted on a file of the pod's own, so that the pod keeps this very device
// whatever becomes of the name. The device stays open for as long as the pod has
// it: its number is then nobody else's. (Upstream keeps it open by attaching a loop
// device to it, which a crash leaves behind.)
func (v *Volumes) device(ctx context.Context, pod *corev1.Pod, pv *corev1.PersistentVolume) (string, error) {
	if pv.Spec.Local == nil {
		return "", &stepError{step: findMapper, volume: pv.Name, err: errors.New("no block volume plugin matched: volumes of this kind are directories")}
	}
	home := filepath.Join(v.Dir(string(pod.UID)), devicesDir, "kubernetes.io~"+localPlugin)
	at := filepath.Join(home, pv.Name)
	leave, err := v.turns.take(ctx, at)
	if err != nil {
		return "", err
	}
	defer leave()
	there, err := isMount(at)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", &stepError{step: mapDevice, volume: pv.Name, err: err}
	}
	if !there { // else by an earlier agent, or before another volume failed
		if err := pin(pv, at); err != nil {
			return "", err
		}
	}
	if err := v.open.hold(string(pod.UID), at); err != nil {
		return "", &stepError{step: mapDevice, volume: pv.Name, err: err}
	}
	if !there {
		v.cfg.Tell(pod, mappedReason, fmt.Sprintf("MapVolume.MapPodDevice succeeded for volume %q volumeMapPath %q", pv.Name, home))
	}
	return at, nil
}

// pin mounts a volume's device node on a file.
func pin(pv *corev1.PersistentVolume, at string) error {
	path, err := filepath.EvalSymlinks(filepath.Join("/", pv.Spec.Local.Path))
	if err != nil {
		return &stepError{step: followLinks, volume: pv.Name, err: err}
	}
	if err := pinNode(path, at); err != nil {
		return &stepError{step: mapDevice, volume: pv.Name, err: err}
	}
	return nil
}

func pinNode(path, at string) error {
	node, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer node.Close()
	info, err := node.Stat()
	if err != nil {
		return err
	}
	if kind(info.Mode()) != corev1.HostPathBlockDev {
		return fmt.Errorf("path %q is not a block device", path)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
		return fmt.Errorf("create directory of devices: %w", err)
	}
	if err := createFile(at); err != nil {
		return err
	}
	if err := unix.Mount(fdPath(node), at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount device node %q: %w", path, err)
	}
	return nil
}

// devices are those that pods' volumes keep open.
type devices struct {
	mu   sync.Mutex
	pods map[string]map[string]*os.File
}

// hold opens a pod's device, unless it is open.
func (d *devices) hold(uid, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pods[uid][path] != nil {
		return nil
	}
	// Not for writing: closing it would then look like a change of its partitions.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	if d.pods == nil {
		d.pods = map[string]map[string]*os.File{}
	}
	if d.pods[uid] == nil {
		d.pods[uid] = map[string]*os.File{}
	}
	d.pods[uid][path] = os.NewFile(uintptr(fd), path)
	return nil
}

// forget closes a pod's devices.
func (d *devices) forget(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.pods[uid] {
		f.Close() // nothing was written
	}
	delete(d.pods, uid)
}
