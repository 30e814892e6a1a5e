package sim_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/kinds/scheduling"
)

// startGangs is a control plane that serves pod groups, with a scheduler that heeds
// them.
func startGangs(t *testing.T) *plane {
	p := startWith(t, func(cfg *apiserver.Config) { cfg.Kinds = append(cfg.Kinds, scheduling.GroupKinds()...) })
	s, err := scheduler.New(scheduler.Config{
		Transport: p.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}}),
		Profiles:  profile.Default(), Seed: 1, Gangs: true, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Run(t.Context()) }()
	p.settle()
	return p
}

func (p *plane) group(name string, least int32, shape ...func(*schedulingv1beta1.PodGroup)) {
	p.Helper()
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: least}
	for _, f := range shape {
		f(g)
	}
	must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Create(p.Context(), p.admin, g))
}

func inGroup(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &name} }
}

// placed counts the pods of a prefix that have nodes.
func (p *plane) placed(prefix string) (n int) {
	p.Helper()
	pods, _, err := client.Pods.List(p.Context(), p.admin, "default", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	for _, pod := range pods {
		if strings.HasPrefix(pod.Name, prefix) && pod.Spec.NodeName != "" && pod.DeletionTimestamp == nil {
			n++
		}
	}
	return n
}

// All of a gang or none: it waits for its group, for its pods and for room, and
// holds nothing meanwhile.
func TestGangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startGangs(t)
		p.addNode("n1")
		p.addNode("n2")
		p.addPod("a-0", "3", inGroup("a"))
		p.addPod("a-1", "3", inGroup("a"))
		p.settle()
		if p.placed("a-") != 0 {
			t.Error("placed without a group")
		}
		p.group("a", 3)
		p.settle()
		if p.placed("a-") != 0 {
			t.Error("placed without the third")
		}
		p.addPod("a-2", "3", inGroup("a"))
		p.settle()
		if p.placed("a-") != 0 {
			t.Error("placed without room for the third")
		}
		g := must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Get(p.Context(), p.admin, "default", "a"))
		c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled)
		if c == nil || c.Status != metav1.ConditionFalse || c.Message != "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, pod group preemption: No preemption victims found for incoming preemptor" {
			t.Errorf("condition %+v", c)
		}
		// What the gang does not use others may have.
		p.addPod("other", "2")
		p.settle()
		if p.pod("other").Spec.NodeName == "" {
			t.Errorf("another pod has no place: %s", whyNot(p.pod("other")))
		}
		p.deletePod("other")
		p.addNode("n3")
		p.settle()
		if n := p.placed("a-"); n != 3 {
			t.Errorf("%d placed: %s", n, whyNot(p.pod("a-0")))
		}
		g = must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Get(p.Context(), p.admin, "default", "a"))
		if !meta.IsStatusConditionTrue(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled) {
			t.Errorf("conditions %+v", g.Status.Conditions)
		}
		// One more than is needed waits by itself.
		p.addPod("a-3", "3", inGroup("a"))
		p.settle()
		if n := p.placed("a-"); n != 3 {
			t.Errorf("%d placed of four", n)
		}
		p.addNode("n4")
		p.settle()
		if n := p.placed("a-"); n != 4 {
			t.Errorf("%d placed of four, with four nodes", n)
		}
	})
}

// Two gangs for which there is room but once do not block each other: one is placed,
// and the other when that has gone, or needs fewer.
func TestGangsDoNotBlockEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startGangs(t)
		for i := range 4 {
			p.addNode(fmt.Sprint("n", i))
		}
		p.group("a", 3)
		p.group("b", 3)
		for i := range 3 { // in turn, as two jobs make them
			p.addPod(fmt.Sprint("a-", i), "3", inGroup("a"))
			p.addPod(fmt.Sprint("b-", i), "3", inGroup("b"))
		}
		p.settle()
		a, b := p.placed("a-"), p.placed("b-")
		if a+b != 3 || a*b != 0 {
			t.Fatalf("placed %d and %d", a, b)
		}
		waits := "b"
		if b == 3 {
			waits = "a"
		}
		g := must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Get(p.Context(), p.admin, "default", waits)).DeepCopy()
		g.Spec.SchedulingPolicy.Gang.MinCount = 1
		must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Update(p.Context(), p.admin, g))
		p.settle()
		if n := p.placed(waits + "-"); n != 1 {
			t.Errorf("%d placed when one is enough", n)
		}
	})
}

// An important gang takes room from others only if all of it gets some; groups that
// are disrupted as a whole go as a whole.
func TestGangPreempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startGangs(t)
		zero := int64(0)
		quick := func(pod *corev1.Pod) { pod.Spec.TerminationGracePeriodSeconds = &zero }
		for i := range 3 {
			p.addNode(fmt.Sprint("n", i))
		}
		p.group("low", 1, func(g *schedulingv1beta1.PodGroup) {
			g.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{All: &schedulingv1beta1.AllDisruptionMode{}}
		})
		p.addPod("low-0", "3", inGroup("low"), quick)
		p.addPod("low-1", "3", inGroup("low"), quick)
		p.addPod("single", "3", quick)
		p.settle()
		if n := p.placed("low-") + p.placed("single"); n != 3 {
			t.Fatalf("%d placed", n)
		}
		must[*schedulingv1.PriorityClass](p)(client.PriorityClasses.Create(p.Context(), p.admin, &schedulingv1.PriorityClass{
			ObjectMeta: metav1.ObjectMeta{Name: "above"}, Value: 1000,
		}))
		p.group("big", 4, func(g *schedulingv1beta1.PodGroup) { g.Spec.PriorityClassName = "above" })
		for i := range 4 {
			p.addPod(fmt.Sprint("big-", i), "3", inGroup("big"), func(p *corev1.Pod) { p.Spec.PriorityClassName = "above" })
		}
		p.settle()
		if n := p.placed("low-") + p.placed("single"); n != 3 || p.placed("big-") != 0 {
			t.Fatalf("for a gang that does not fit all the same, %d are left", n)
		}
		g := must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Get(p.Context(), p.admin, "default", "big")).DeepCopy()
		g.Spec.SchedulingPolicy.Gang.MinCount = 2
		must[*schedulingv1beta1.PodGroup](p)(client.PodGroups.Update(p.Context(), p.admin, g))
		for range 5 {
			p.settle()
		}
		if n := p.placed("big-"); n < 2 {
			t.Errorf("%d of the gang are placed: %s", n, whyNot(p.pod("big-0")))
		}
	})
}
