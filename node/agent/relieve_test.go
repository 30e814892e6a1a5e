package agent

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/pressure"
)

// testMachine is a node whose memory and disk a test sets, in thousandths: of a
// thousand MiB, and of sixteen times as many.
type testMachine struct {
	memory, disk atomic.Int64
	// relieved, when not nil, says that the disk has room again.
	relieved atomic.Pointer[func() bool]
}

func (m *testMachine) observe() pressure.Observations {
	of := func(n int64, unit int) pressure.Observation {
		return pressure.Observation{Available: n << unit, Capacity: 1000 << unit}
	}
	disk := of(m.disk.Load(), 24)
	if f := m.relieved.Load(); f != nil && (*f)() {
		disk = of(500, 24)
	}
	return pressure.Observations{pressure.Memory: of(m.memory.Load(), 20), pressure.NodeFS: disk, pressure.ImageFS: disk}
}

// short starts the agent anew on a machine of the test's.
func (s *story) short() *testMachine {
	m := &testMachine{}
	m.memory.Store(500)
	m.disk.Store(500)
	s.stopAgent()
	s.observe = m.observe
	s.startAgent()
	return m
}

// conditions tells of the node's pressures.
func (s *story) conditions() string {
	n, err := client.Nodes.Get(s.ctx, s.api, "", "n1")
	if err != nil {
		s.t.Fatal(err)
	}
	var list []string
	for _, c := range n.Status.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.NodeReady {
			list = append(list, string(c.Type)+" "+c.Reason)
		}
	}
	return strings.Join(list, ", ")
}

// TestEviction: whoever uses more than requested goes first, critical pods stay,
// and the node keeps others out for a while.
func TestEviction(t *testing.T) {
	tell(t, "eviction", func(s *story) {
		m := s.short()
		modest := pod("modest", container("app", "app"))
		modest.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: quantity("300Mi")}
		vital, priority := pod("vital", container("app", "app")), int32(2_000_000_000)
		vital.Spec.Priority = &priority
		greedy := pod("greedy", container("app", "app"))
		greedy.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: quantity("10Mi")}
		s.engine.Memory = map[string]uint64{"modest": 200 << 20, "vital": 400 << 20, "greedy": 100 << 20}
		for _, p := range []*corev1.Pod{modest, vital, greedy} {
			s.create(p)
		}
		s.pass(15 * time.Second)
		s.say("> memory runs out")
		m.memory.Store(50)
		s.pass(7 * time.Second)
		m.memory.Store(150)
		s.say("> memory is back")
		s.pass(10 * time.Second)
		s.say("conditions: %s", s.conditions())
		s.create(pod("idle", container("app", "app")))
		s.pass(time.Minute)
		s.say("greedy: %s", s.get("greedy").Status.Message)
		s.say("idle: %s", s.get("idle").Status.Message)
		s.say("conditions: %s", s.conditions())
		s.pass(5 * time.Minute)
		s.say("conditions: %q", s.conditions())
	})
}

// TestDiskPressure: what nobody uses goes before any pod does.
func TestDiskPressure(t *testing.T) {
	tell(t, "disk_pressure", func(s *story) {
		m := s.short()
		s.engine.Do(func() {
			for _, name := range []string{"unused", "pinned"} {
				s.engine.Images[name] = s.engine.Images["app"]
			}
			s.engine.Pinned = map[string]bool{"pinned": true}
		})
		s.create(pod("web", container("app", "app")))
		s.pass(55 * time.Second)
		m.disk.Store(20)
		s.say("> the disk is full until an image goes")
		relieved := func() bool {
			gone := false
			s.engine.Do(func() { gone = s.engine.Images["unused"] == nil })
			return gone
		}
		m.relieved.Store(&relieved)
		s.pass(25 * time.Second)
		var left []string
		s.engine.Do(func() { left = slices.Sorted(maps.Keys(s.engine.Images)) })
		s.say("images left: %v; conditions: %s", left, s.conditions())
	})
}

// TestStorageLimits: a pod that fills its directory beyond its limit goes.
func TestStorageLimits(t *testing.T) {
	tell(t, "storage_limit", func(s *story) {
		s.short()
		limit := quantity("1Mi")
		p := pod("hoarder", container("app", "app"))
		p.Spec.Volumes = []corev1.Volume{{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cache", MountPath: "/cache"}}
		s.create(p)
		s.pass(25 * time.Second)
		s.say("> fill the directory")
		dir := filepath.Join(s.dir, "pods", string(s.get("hoarder").UID), "volumes", "kubernetes.io~empty-dir", "cache")
		if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 2<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		s.pass(30 * time.Second)
		s.say("message: %s", s.get("hoarder").Status.Message)
	})
}

// TestImageCollection: a full disk costs unused images that are old enough.
func TestImageCollection(t *testing.T) {
	tell(t, "image_collection", func(s *story) {
		high, low := int32(80), int32(79)
		s.kubelet.ImageGCHighThresholdPercent, s.kubelet.ImageGCLowThresholdPercent = &high, &low
		m := s.short()
		m.disk.Store(199) // more than 80 % used, and no eviction yet
		s.create(pod("web", container("app", "app")))
		s.pass(4 * time.Minute)
		s.engine.Do(func() { s.engine.Images["young"] = s.engine.Images["app"] })
		s.pass(70 * time.Second)
		images := func() {
			s.engine.Do(func() { s.say("images: %v", slices.Sorted(maps.Keys(s.engine.Images))) })
		}
		images()
		s.pass(5 * time.Minute)
		images()
		list, _, err := client.Events.List(s.ctx, s.api, "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.InvolvedObject.Kind == "Node" && e.Type == corev1.EventTypeWarning {
				s.say("node event %s: %s", e.Reason, e.Message)
			}
		}
	})
}
