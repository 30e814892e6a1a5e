package giveup

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
)

// A pod is given up when its container has failed after the last of its restarts, and
// not before.
func TestGiveUp(t *testing.T) {
	ended := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	held := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	tests := map[string]struct {
		most   string
		status corev1.ContainerStatus
		want   bool
	}{
		"failed":       {"2", corev1.ContainerStatus{RestartCount: 2, State: ended(3)}, true},
		"held":         {"2", corev1.ContainerStatus{RestartCount: 2, State: held, LastTerminationState: ended(3)}, true},
		"more":         {"2", corev1.ContainerStatus{RestartCount: 5, State: ended(3)}, true},
		"once-more":    {"3", corev1.ContainerStatus{RestartCount: 2, State: ended(3)}, false},
		"last-one":     {"2", corev1.ContainerStatus{RestartCount: 2, State: runs, LastTerminationState: ended(3)}, false},
		"well":         {"2", corev1.ContainerStatus{RestartCount: 2, State: ended(0)}, false},
		"never-asked":  {"", corev1.ContainerStatus{RestartCount: 9, State: ended(3)}, false},
		"no-number":    {"x", corev1.ContainerStatus{RestartCount: 9, State: ended(3)}, false},
		"not-yet-made": {"1", corev1.ContainerStatus{RestartCount: 1, State: held}, false},
	}
	synctest.Test(t, func(t *testing.T) {
		api := clienttest.NewMemory()
		mirrors := controller.NewMirrors(api, nil)
		c, err := New(controller.Config{Transport: func(string) client.Transport { return api }, Mirrors: mirrors})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = mirrors.Run(t.Context()) }()
		go func() { _ = c.Run(t.Context()) }()
		for name, test := range tests {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", Annotations: map[string]string{Annotation: test.most}}}
			if p, err = client.Pods.Create(t.Context(), api, p); err != nil {
				t.Fatal(err)
			}
			p = p.DeepCopy()
			p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{test.status}
			if _, err := client.Pods.UpdateStatus(t.Context(), api, p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for name, test := range tests {
			p, err := client.Pods.Get(t.Context(), api, "a", name)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Spec.ActiveDeadlineSeconds != nil; got != test.want {
				t.Errorf("%s: given up %v, want %v", name, got, test.want)
			}
		}
	})
}
