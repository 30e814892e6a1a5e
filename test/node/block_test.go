package node_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
)

// device makes a block device of a file, until the test ends; detach gives it up
// before.
func (n *node) device(file string) (path string, detach func()) {
	n.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		n.Skipf("this machine has no loop devices: %v", err)
	}
	defer control.Close()
	n.must(os.WriteFile(file, make([]byte, 4096), 0o600))
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	n.must(err)
	defer backing.Close()
	for range 100 { // others take them at the same time
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			n.Skipf("there is no free loop device: %v", err)
		}
		path = fmt.Sprintf("/dev/loop%d", number)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			n.Skipf("loop devices can't be opened: %v", err)
		}
		err = unix.IoctlLoopConfigure(int(f.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd())})
		if err == nil {
			detach = func() {
				if f == nil {
					return
				}
				_, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CLR_FD)
				err, f = errors.Join(err, f.Close()), nil
				n.must(err)
			}
			n.Cleanup(detach)
			return path, detach
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) {
			n.Skipf("loop devices can't be attached: %v", err)
		}
	}
	n.Fatal("somebody else has taken every loop device")
	return "", nil
}

// A claim on a block device is the device itself in the pod: what is written there
// is on it; one that is read-only can't be written, nor can any other device; and
// when the pods have gone nobody has it open.
func TestBlockClaim(t *testing.T) {
	n := newNode(t, nil)
	file := filepath.Join(n.dir, "disk")
	path, detach := n.device(file)
	mode := corev1.PersistentVolumeBlock
	pv := n.volume("block-raw", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}})
	pv.Spec.VolumeMode = &mode
	_, err := client.PersistentVolumes.Create(t.Context(), n.admin, pv)
	n.must(err)
	claim := n.claimFor("raw", "block-raw")
	claim.Spec.VolumeMode = &mode
	_, err = client.PersistentVolumeClaims.Create(t.Context(), n.admin, claim)
	n.must(err)
	using := func(name string, readOnly bool, command ...string) *corev1.Pod {
		p := n.pod(name, command...)
		p.Spec.Volumes = []corev1.Volume{{Name: "raw", VolumeSource: claimed("raw", readOnly)}}
		p.Spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: "raw", DevicePath: "/devices/raw"}}
		return p
	}
	if out, p := n.run(using("writes", false, "write", "/devices/raw", "by the pod")); p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the pod can't write to its device: %s", out)
	}
	if !strings.Contains(n.events("writes"), `SuccessfulMountVolume: MapVolume.MapPodDevice succeeded for volume "block-raw" volumeMapPath`) {
		t.Errorf("events: %s", n.events("writes"))
	}
	if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), "by the pod\x00") {
		t.Errorf("on the disk: %.20q, %v", b, err)
	}
	if out, _ := n.run(using("reads", true, "cat", "/devices/raw")); !strings.HasPrefix(out, "by the pod") {
		t.Errorf("the next pod reads %.20q", out)
	}
	if out, p := n.run(using("spoils", true, "write", "/devices/raw", "no")); p.Status.Phase != corev1.PodFailed || !strings.Contains(out, "not permitted") {
		t.Errorf("a pod wrote to its read-only device: %s", out)
	}
	n.create(with(n.pod("mounts", "wait"), claimed("raw", false), corev1.VolumeMount{MountPath: "/data"}))
	n.await("mounts", "is told that a device is no directory", func(*corev1.Pod) bool {
		return strings.Contains(n.events("mounts"), "volume v0 has volumeMode Block, but is specified in volumeMounts")
	})
	for _, name := range []string{"writes", "reads", "spoils", "mounts"} {
		n.delete(name)
		until(n, name+" is gone", func() bool { return n.gone(name) })
	}
	detach()
	until(n, "nobody has the device open", func() bool {
		raw, err := os.ReadFile("/sys/block/" + filepath.Base(path) + "/loop/backing_file")
		return err != nil || strings.TrimSpace(string(raw)) != file
	})
}
