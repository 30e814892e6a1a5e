package sim_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// schedule starts the real scheduler; the end of the test, or stop, ends it.
func (p *plane) schedule() (s *scheduler.Scheduler, stop func()) {
	p.Helper()
	return p.scheduleVia(p.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}}))
}

func (p *plane) scheduleVia(t client.Transport) (s *scheduler.Scheduler, stop func()) {
	p.Helper()
	s, err := scheduler.New(scheduler.Config{
		Transport: t, Profiles: profile.Default(), Seed: 1, Metrics: p.metrics,
		Log: slog.New(slog.NewTextHandler(p.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		p.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	p.settle()
	return s, func() {
		cancel()
		<-done
	}
}

// addNode makes a node that is ready, with 4 CPUs and room for 110 pods.
func (p *plane) addNode(name string, shape ...func(*corev1.Node)) {
	p.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, f := range shape {
		f(n)
	}
	n.Status.Allocatable = n.Status.Capacity
	must[*corev1.Node](p)(client.Nodes.Create(p.Context(), p.admin, n))
	p.settle()
	made := must[*corev1.Node](p)(client.Nodes.Get(p.Context(), p.admin, "", name)).DeepCopy()
	made.Spec.Taints = n.Spec.Taints
	must[*corev1.Node](p)(client.Nodes.Update(p.Context(), p.admin, made))
}

// addPod makes a pod that asks for so much CPU.
func (p *plane) addPod(name, cpu string, shape ...func(*corev1.Pod)) *corev1.Pod {
	p.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
	}}}}
	for _, f := range shape {
		f(pod)
	}
	made, err := client.Pods.Create(p.Context(), p.admin, pod)
	if err != nil {
		p.Fatal(err)
	}
	return made
}

func (p *plane) pod(name string) *corev1.Pod {
	p.Helper()
	pod, err := client.Pods.Get(p.Context(), p.admin, "default", name)
	if err != nil {
		p.Fatal(err)
	}
	return pod
}

// want says that a pod should be on a node; "" is none.
func (p *plane) want(name, node string) {
	p.Helper()
	if have := p.pod(name); have.Spec.NodeName != node {
		p.Errorf("pod %q is on %q, not %q: %s", name, have.Spec.NodeName, node, whyNot(have))
	}
}

func whyNot(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

func must[T any](t *plane) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// What is kept for a pod that goes is others' again, at once.
func TestNominationsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.schedule()
		p.addPod("low", "4", grace)
		p.settle()
		p.want("low", "n1")
		p.addPod("high", "4", withPriority(1000))
		p.settle()
		if have := p.pod("high"); have.Status.NominatedNodeName != "n1" {
			t.Fatalf("nominated %q: %s", have.Status.NominatedNodeName, whyNot(have))
		}
		p.addPod("other", "3")
		p.settle()
		p.want("other", "")
		zero := int64(0)
		for _, name := range []string{"low", "high"} {
			if err := client.Pods.Delete(p.Context(), p.admin, "default", name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
				t.Fatal(err)
			}
			p.settle()
		}
		p.want("other", "n1")
	})
}

func grace(p *corev1.Pod) {
	seconds := int64(3600)
	p.Spec.TerminationGracePeriodSeconds = &seconds
}

// withPriority is allowed to the test by no class: the number is in the spec.
func withPriority(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		if n >= 1000 {
			p.Spec.PriorityClassName = "system-cluster-critical"
		}
	}
}

// deaf refuses to delete pods, so long as it is told to.
type deaf struct {
	client.Transport
	off atomic.Bool
}

func (d *deaf) Delete(ctx context.Context, at target.Target, opts metav1.DeleteOptions) error {
	if at.Resource.Resource == "pods" && !d.off.Load() {
		return errors.New("the network is down")
	}
	return d.Transport.Delete(ctx, at, opts)
}

// A preemption whose victims could not be deleted is made again; more important pods
// take the room that is being freed for less important ones, which find another.
func TestPreemptionsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		d := &deaf{Transport: p.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}})}
		p.scheduleVia(d)
		zero := int64(0)
		p.addPod("low", "4", func(pod *corev1.Pod) { pod.Spec.TerminationGracePeriodSeconds = &zero })
		p.settle()
		p.want("low", "n1")
		p.addPod("high", "4", withPriority(1000))
		p.settle()
		p.want("high", "")
		d.off.Store(true)
		time.Sleep(30 * time.Second)
		p.settle()
		p.want("high", "n1")
	})
}

// A node that vanishes is no longer waited for.
func TestNominatedNodeVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.schedule()
		p.addPod("low", "4", grace)
		p.settle()
		p.addPod("high", "4", withPriority(1000))
		p.settle()
		if have := p.pod("high"); have.Status.NominatedNodeName != "n1" {
			t.Fatalf("nominated %q", have.Status.NominatedNodeName)
		}
		if err := client.Nodes.Delete(p.Context(), p.admin, "", "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.addNode("n2", func(n *corev1.Node) { n.Status.Capacity[corev1.ResourceCPU] = resource.MustParse("1") })
		p.settle()
		p.want("high", "")
		p.addNode("n3")
		p.settle()
		p.want("high", "n3")
		if have := p.pod("high"); have.Status.NominatedNodeName != "" {
			t.Errorf("nominated %q", have.Status.NominatedNodeName)
		}
	})
}
