package plan

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

func memory(limit string) corev1.ResourceRequirements {
	if limit == "" {
		return corev1.ResourceRequirements{}
	}
	return corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}}
}

// TestResizeOfAPod: what has to be resized when a container, or its pod, is to have
// another limit than it has. Containers come first, and no other starts before the pod
// has what it should.
func TestResizeOfAPod(t *testing.T) {
	for _, c := range []struct {
		name                           string
		had, hadWhole, asks, asksWhole string
		change                         func(*Input)
		want                           string
	}{
		{"nothing", "64Mi", "", "64Mi", "", nil, "[start/y]"},
		{"a container", "64Mi", "", "32Mi", "", nil, "[resize/x#0 start/y]"},
		{"a container that must start anew", "64Mi", "", "32Mi", "", func(in *Input) {
			in.Pod.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		}, "[kill/x#0 start/y]"},
		{"a container without a limit, with its pod", "", "64Mi", "", "128Mi", nil, "[resize/x#0 start/y]"},
		{"then the pod", "", "64Mi", "", "128Mi", func(in *Input) { in.Given["x#0"] = Asked(in.Pod, &in.Pod.Spec.Containers[0]) }, "[resize pod/box]"},
		{"the pod alone", "32Mi", "64Mi", "32Mi", "128Mi", nil, "[resize pod/box]"},
		{"under way", "32Mi", "64Mi", "32Mi", "128Mi", func(in *Input) { in.Busy = map[string]bool{"resize pod/box": true} }, "[]"},
		{"it has failed", "32Mi", "64Mi", "32Mi", "128Mi", func(in *Input) { in.HoldResize = epoch.Add(1) }, "[start/y]"},
		{"one that ended while the pod has yet to grow", "32Mi", "64Mi", "32Mi", "128Mi", func(in *Input) { in.Actual.Containers[0].State = actual.Exited }, "[resize pod/box]"},
	} {
		pod := func(own, whole string) *corev1.Pod {
			p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Resources: memory(own)}, {Name: "y", Resources: memory("1Mi")}}}}
			if whole != "" {
				r := memory(whole)
				p.Spec.Resources = &r
			}
			return p
		}
		before := pod(c.had, c.hadWhole)
		in := Input{
			Pod: pod(c.asks, c.asksWhole), Now: epoch, Mounted: true, Images: map[string]bool{"x": true, "y": true},
			Actual: &actual.Pod{
				Sandboxes:  []actual.Sandbox{{ID: "box", Ready: true}},
				Containers: []actual.Container{{ID: "x#0", Name: "x", SandboxID: "box", State: actual.Running}},
			},
			Given: map[string]Given{"box": AskedWhole(before), "x#0": Asked(before, &before.Spec.Containers[0])},
		}
		if c.change != nil {
			c.change(&in)
		}
		keys := []string{}
		for _, s := range Next(in).Steps {
			keys = append(keys, s.Key())
		}
		if got := fmt.Sprint(keys); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestLessMemory: a limit where there was none is less, too.
func TestLessMemory(t *testing.T) {
	whole := memory("32Mi")
	for _, c := range []struct {
		name       string
		have, want Given
		less       int64
	}{
		{"more", Given{Own: memory("32Mi")}, Given{Own: memory("64Mi")}, 0},
		{"as much", Given{Own: memory("64Mi")}, Given{Own: memory("64Mi")}, 0},
		{"less", Given{Own: memory("64Mi")}, Given{Own: memory("32Mi")}, 32 << 20},
		{"a limit", Given{}, Given{Own: memory("32Mi")}, 32 << 20},
		{"the pod's", Given{}, Given{Whole: &whole}, 32 << 20},
		{"no limit any more", Given{Own: memory("64Mi")}, Given{}, 0},
	} {
		if got := LessMemory(c.have, c.want); got != c.less {
			t.Errorf("%s: %d, want %d", c.name, got, c.less)
		}
	}
}
