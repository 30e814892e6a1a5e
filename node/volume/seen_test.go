package volume

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

// Every volume of a pod is told of when it is mounted and when it is taken away, and
// counted meanwhile.
func TestSeen(t *testing.T) {
	var told []string
	v := New(Config{Root: t.TempDir(), Seen: func(plugin, operation string, _ time.Duration, err error) {
		told = append(told, fmt.Sprint(plugin, " ", operation, " ", err == nil))
	}})
	pod := podWith(
		corev1.Volume{Name: "a", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		corev1.Volume{Name: "b", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Cheese"}}},
		corev1.Volume{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "none"}}},
	)
	if _, err := v.Prepare(t.Context(), pod, downward.Facts{}); err == nil {
		t.Fatal("a medium that there isn't, and a claim that nobody knows")
	}
	wanted, there := v.Held()
	if wanted["kubernetes.io/empty-dir"] != 2 || wanted[""] != 1 || there["kubernetes.io/empty-dir"] != 1 {
		t.Errorf("wanted %v, there %v", wanted, there)
	}
	if err := v.Remove(string(pod.UID)); err != nil {
		t.Fatal(err)
	}
	want := []string{"kubernetes.io/empty-dir volume_mount true", "kubernetes.io/empty-dir volume_mount false", "kubernetes.io/empty-dir volume_unmount true"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if wanted, _ := v.Held(); len(wanted) != 0 {
		t.Errorf("still wanted: %v", wanted)
	}
}

// The size of a volume in memory is the least of all that bounds it.
func TestMemorySize(t *testing.T) {
	for _, c := range []struct{ allocatable, pod, own, want int64 }{
		{0, 0, 0, 0},
		{1000, 0, 0, 1000},
		{1000, 300, 0, 300},
		{1000, 3000, 0, 1000},
		{1000, 300, 400, 300},
		{1000, 300, 200, 200},
		{0, 0, 200, 200},
	} {
		vol := &corev1.Volume{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
		if c.own > 0 {
			vol.EmptyDir.SizeLimit = resource.NewQuantity(c.own, resource.BinarySI)
		}
		facts := downward.Facts{MemoryLimit: c.pod, Allocatable: corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(c.allocatable, resource.BinarySI)}}
		if got := memorySize(vol, facts); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
