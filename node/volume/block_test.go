package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// loop is a block device made of a file.
type loop struct {
	path, file string
	number     int
	f          *os.File
}

// newLoop attaches a loop device to a file that begins with text. It is detached
// when the test ends.
func newLoop(t *testing.T, text string) *loop {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine has no loop devices: %v", err)
	}
	defer control.Close()
	l := &loop{file: filepath.Join(t.TempDir(), "disk")}
	if err := os.WriteFile(l.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.file, 1<<20); err != nil {
		t.Fatal(err)
	}
	backing, err := os.OpenFile(l.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	for range 100 { // others take them at the same time
		if l.number, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			t.Skipf("there is no free loop device: %v", err)
		}
		l.path = fmt.Sprintf("/dev/loop%d", l.number)
		if l.f, err = os.OpenFile(l.path, os.O_RDWR, 0); err != nil {
			t.Skipf("loop devices can't be opened: %v", err)
		}
		if err = unix.IoctlLoopConfigure(int(l.f.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd())}); err == nil {
			break
		}
		l.f.Close()
		if !errors.Is(err, unix.EBUSY) {
			t.Skipf("loop devices can't be attached: %v", err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.detach(t) })
	return l
}

// detach lets go of the device; the kernel does once nobody has it open.
func (l *loop) detach(t *testing.T) {
	t.Helper()
	if l.f == nil {
		return
	}
	if _, err := unix.IoctlRetInt(int(l.f.Fd()), unix.LOOP_CLR_FD); err != nil && !errors.Is(err, unix.ENXIO) {
		t.Error(err)
	}
	l.f.Close()
	l.f = nil
}

// attached says whether the device still shows our file.
func (l *loop) attached() bool {
	raw, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", l.number))
	return err == nil && strings.TrimSpace(string(raw)) == l.file
}

func blockMode(pv *corev1.PersistentVolume) *corev1.PersistentVolume {
	mode := corev1.PersistentVolumeBlock
	pv.Spec.VolumeMode = &mode
	return pv
}

// useAsDevice has the pod's container want the volume as a device.
func useAsDevice(pod *corev1.Pod, volume string) *corev1.Pod {
	pod.Spec.Containers[0].VolumeMounts = nil
	pod.Spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: volume, DevicePath: "/dev/data"}}
	return pod
}

// A pod keeps the device that it got: under another name, when that name is another
// device's, and when whoever made the device wants it back. Then nothing is left.
func TestBlockVolume(t *testing.T) {
	b, s, _ := claimBench(t)
	var told []string
	b.Volumes = New(with(b.cfg, func(_ *corev1.Pod, reason, message string) { told = append(told, reason+": "+message) }))
	disk, other := newLoop(t, "ours"), newLoop(t, "another")
	link := filepath.Join(t.TempDir(), "by-name")
	if err := os.Symlink(disk.path, link); err != nil {
		t.Fatal(err)
	}
	_, pv := s.bind("raw", localSource(link))
	blockMode(pv)
	pod := useAsDevice(podWith(claimVolume("v", "raw", true)), "v")
	set := b.prepare(t, pod)
	home := b.Dir("u1") + "/volumeDevices/kubernetes.io~local-volume"
	if set.Paths["v"] != home+"/pv-raw" || !set.ReadOnly["v"] {
		t.Errorf("the volume is at %q", set.Paths["v"])
	}
	want := []string{`SuccessfulMountVolume: MapVolume.MapPodDevice succeeded for volume "pv-raw" volumeMapPath "` + home + `"`}
	if !slices.Equal(told, want) {
		t.Errorf("told of %q", told)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(other.path, link)); err != nil {
		t.Fatal(err)
	}
	later := New(b.cfg) // an agent that has been restarted
	for _, v := range []*Volumes{b.Volumes, later} {
		again := (&bench{Volumes: v}).prepare(t, pod)
		f, err := os.Open(again.Paths["v"])
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 4)
		if _, err := f.Read(text); err != nil || string(text) != "ours" {
			t.Errorf("on the device: %q, %v", text, err)
		}
		f.Close()
	}
	if len(told) != 1 {
		t.Errorf("told again: %q", told)
	}
	disk.detach(t)
	if !disk.attached() {
		t.Error("the device went away from under the pod")
	}
	if err := errors.Join(b.Remove("u1"), later.Remove("u1")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Dir("u1")); !os.IsNotExist(err) {
		t.Errorf("the pod's directory is left: %v", err)
	}
	late, look := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer look.Stop()
	for disk.attached() { // whoever watches devices may have opened it for a moment
		select {
		case <-look.C:
		case <-late:
			t.Fatal("somebody still has the device open")
		}
	}
}

// with is a configuration that tells of what has gone well.
func with(cfg Config, tell func(*corev1.Pod, string, string)) Config {
	cfg.Tell = tell
	return cfg
}

func TestBlockVolumesThatCantBeMapped(t *testing.T) {
	b, s, _ := claimBench(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source       corev1.PersistentVolumeSource
		want, reason string
	}{
		"nowhere": {localSource("/no/such/device"), `MapVolume.EvalHostSymlinks failed for volume "pv-nowhere" : lstat /no: no such file or directory`, "FailedMapVolume"},
		"file":    {localSource(file), `MapVolume.MapBlockVolume failed for volume "pv-file" : path "` + file + `" is not a block device`, "FailedMapVolume"},
		"null":    {localSource("/dev/null"), `MapVolume.MapBlockVolume failed for volume "pv-null" : path "/dev/null" is not a block device`, "FailedMapVolume"},
		"host":    {hostSource("/dev"), `MapVolume.FindMapperPluginBySpec failed for volume "pv-host" : no block volume plugin matched`, "FailedMapVolume"},
	} {
		_, pv := s.bind(name, c.source)
		blockMode(pv)
		err := b.failure(t, useAsDevice(podWith(claimVolume("v", name, false)), "v"))
		if !strings.HasPrefix(err.Error(), c.want) || Reason(err) != c.reason {
			t.Errorf("%s: %s: %v", name, Reason(err), err)
		}
	}
	_, pv := s.bind("far", localSource("/dev/null"))
	blockMode(pv)
	s.far = errors.New("no matching NodeSelectorTerms")
	err := b.failure(t, useAsDevice(podWith(claimVolume("v", "far", false)), "v"))
	if err.Error() != `MapVolume.NodeAffinity check failed for volume "pv-far" : no matching NodeSelectorTerms` || Reason(err) != "FailedMount" {
		t.Errorf("%s: %v", Reason(err), err)
	}
	s.far = nil
	s.bind("files", localSource(t.TempDir()))
	err = b.failure(t, useAsDevice(podWith(claimVolume("v", "files", false)), "v"))
	if !strings.Contains(err.Error(), "volume v has volumeMode Filesystem, but is specified in volumeDevices") || Reason(err) != "FailedMount" {
		t.Errorf("%s: %v", Reason(err), err)
	}
}

// A volume of one pod only is another's when that one has gone.
func TestVolumeOfOnePod(t *testing.T) {
	b, s, _ := claimBench(t)
	_, pv := s.bind("alone", localSource(t.TempDir()))
	pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	b.prepare(t, podWith(claimVolume("v", "alone", false)))
	second := podWith(claimVolume("v", "alone", false))
	second.UID = "u2"
	const want = `MountVolume.SetUp failed for volume "pv-alone" : volume uses the ReadWriteOncePod access mode and is already in use by another pod`
	if err := b.failure(t, second); err.Error() != want {
		t.Error(err)
	}
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	b.prepare(t, second)
}
