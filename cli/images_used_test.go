package cli

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// A container uses the image that it was made of, whatever the name of that means by now;
// one that has not begun, what its name means.
func TestIsOf(t *testing.T) {
	img := image.Image{ID: "sha256:aa", Manifest: "sha256:bb", Tags: []string{"docker.io/library/web:1"}}
	named := func(name string) bool { return name == "web:1" }
	for name, c := range map[string]struct {
		own        bool
		image, ran string
		want       bool
	}{
		"it runs":                       {true, "web:1", "docker.io/library/web@sha256:bb", true},
		"it is of the ID":               {true, "sha256:aa", "sha256:aa", true},
		"its name has become another's": {true, "web:1", "docker.io/library/web@sha256:cc", false},
		"the name is gone":              {true, "old:1", "docker.io/library/web@sha256:bb", true},
		"it has not begun":              {true, "web:1", "", true},
		"it has not begun, of another":  {true, "job:1", "", false},
		"it is a pod of the cluster's":  {false, "web:1", "docker.io/library/web@sha256:bb", false},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: c.image}}}}
		if c.own {
			pod.Labels[runLabel] = "p"
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{ImageID: c.ran}}
		if got := isOf(pod, img, named); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for ref, want := range map[string]bool{"web:1": true, "docker.io/library/web:1": true, "web:2": false, "sha256:aa": false, "aa": false} {
		if got := losesName(img, ref); got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
}
