package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
)

// TestShrinkIsRefused: which limits can't be lowered with what is used.
func TestShrinkIsRefused(t *testing.T) {
	uses := func(n uint64) *rt.MemoryUsage { return &rt.MemoryUsage{UsageBytes: &rt.UInt64Value{Value: n}} }
	of := func(name string, m *rt.MemoryUsage) *rt.ContainerStats {
		return &rt.ContainerStats{Attributes: &rt.ContainerAttributes{Metadata: &rt.ContainerMetadata{Name: name}}, Memory: m}
	}
	used := &rt.LinuxPodSandboxStats{Memory: uses(100), Containers: []*rt.ContainerStats{of("a", uses(60)), of("b", uses(40)), of("mute", nil)}}
	for _, c := range []struct {
		name string
		to   shrink
		used *rt.LinuxPodSandboxStats
		want string
	}{
		{"enough for all", shrink{whole: 101, containers: map[string]int64{"a": 61}}, used, ""},
		{"a limit that is what is used", shrink{containers: map[string]int64{"a": 60}}, used,
			`cannot decrease memory limits: attempting to set container "a" memory limit (60) below current usage (60)`},
		{"the pod", shrink{whole: 99}, used, "cannot decrease memory limits: attempting to set pod memory limit (99) below current usage (100)"},
		{"both", shrink{whole: 99, containers: map[string]int64{"a": 90, "b": 9}}, used,
			`cannot decrease memory limits: [attempting to set pod memory limit (99) below current usage (100), attempting to set container "b" memory limit (9) below current usage (40)]`},
		{"one that isn't measured", shrink{containers: map[string]int64{"mute": 9}}, used, `cannot decrease memory limits: missing container "mute" memory usage`},
		{"a pod that isn't", shrink{whole: 9}, nil, "cannot decrease memory limits: missing pod memory usage"},
		{"one that has ended", shrink{containers: map[string]int64{"gone": 9}}, used, ""},
	} {
		got := ""
		if err := c.to.refusal(c.used); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestShrinkWaitsForMemory: a limit isn't set below what a container, or its pod, uses;
// it is as soon as less is used.
func TestShrinkWaitsForMemory(t *testing.T) {
	tell(t, "shrink", func(s *story) {
		c := container("app", "app")
		limited := func(cpu, memory string) corev1.ResourceRequirements {
			r := corev1.ResourceList{"cpu": quantity(cpu), "memory": quantity(memory)}
			return corev1.ResourceRequirements{Requests: r, Limits: r}
		}
		c.Resources = limited("100m", "128Mi")
		s.create(pod("shrinks", c))
		s.pass(time.Second)
		show := func() {
			for _, cond := range s.get("shrinks").Status.Conditions {
				if cond.Type == corev1.PodResizeInProgress {
					s.say("%s %s: %s", cond.Type, cond.Reason, cond.Message)
				}
			}
			r := s.engine.Resources("shrinks", "app")
			s.say("has %d MiB, quota %d", r.GetMemoryLimitInBytes()>>20, r.GetCpuQuota())
		}
		uses := func(pod, own uint64) {
			s.say("> uses %d MiB, app %d", pod, own)
			s.engine.Do(func() { s.engine.Memory = map[string]uint64{"shrinks": pod << 20, "shrinks/app": own << 20} })
			s.pass(startRetry + time.Second)
			show()
		}
		uses(100, 90)
		next := s.get("shrinks").DeepCopy()
		next.Spec.Containers[0].Resources = limited("200m", "64Mi")
		s.say("> resize to 64 MiB, 200m")
		if _, err := client.Pods.Update(s.ctx, s.api, next); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		show()
		uses(70, 60) // volumes in memory are the pod's
		uses(60, 50)
	})
}
