package agent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestBurstablePodsShareWhatTheyRequest: the class weighs what the burstable pods
// on the node request, and forgets those that have gone.
func TestBurstablePodsShareWhatTheyRequest(t *testing.T) {
	tell(t, "shares", func(s *story) {
		top := filepath.Join(s.dir, "cgroup", "cpu", "sampan", "kubepods")
		for _, class := range []string{"burstable", "besteffort"} {
			if err := os.MkdirAll(filepath.Join(top, class), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(top, class, "cpu.shares"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		shares := func() {
			synctest.Wait()
			for _, class := range []string{"burstable", "besteffort"} {
				b, err := os.ReadFile(filepath.Join(top, class, "cpu.shares"))
				if err != nil {
					t.Fatal(err)
				}
				s.say("%s: %s", class, b[:min(len(b), 4)])
			}
		}
		for _, name := range []string{"one", "two"} {
			c := container("app", "app")
			c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("750m")}
			s.create(pod(name, c))
		}
		s.create(pod("idle", container("app", "app")))
		s.pass(5e9)
		shares()
		s.delete("one")
		s.pass(60e9)
		shares()
	})
}
