package volume

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The files of a pod's own volumes are labelled for it, those of the host are not.
func TestRelabel(t *testing.T) {
	b, s, _ := claimBench(t)
	s.bind("disk", localSource(t.TempDir()))
	s.bind("shared", hostSource(t.TempDir()))
	volume := func(name string, source corev1.VolumeSource) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: source}
	}
	set := b.prepare(t, podWith(
		claimVolume("local", "disk", false), claimVolume("read", "disk", true), claimVolume("host-claim", "shared", false),
		volume("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: t.TempDir()}}),
		volume("empty", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volume("down", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}),
		volume("image", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "x"}}),
	))
	if got := strings.Join(slices.Sorted(maps.Keys(set.Relabel)), " "); got != "down empty local" {
		t.Errorf("relabelled: %s", got)
	}
}
