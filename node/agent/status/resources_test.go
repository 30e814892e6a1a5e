package status

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
)

func needs(requests, limits string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: quantities(requests), Limits: quantities(limits)}
}

func quantities(text string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, f := range strings.Fields(text) {
		name, value, _ := strings.Cut(f, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return list
}

func words(list corev1.ResourceList) string {
	var out []string
	for name, q := range list {
		out = append(out, fmt.Sprintf("%s=%s", name, q.String()))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestResourcesOfThePod: what status.resources and status.allocatedResources say.
func TestResourcesOfThePod(t *testing.T) {
	waiting := func(in *Input) { in.Actual.Containers = nil }
	running := func(*Input) {}
	whole, older := needs("cpu=1", "cpu=2 memory=200Mi"), needs("cpu=1", "cpu=1 memory=200Mi")
	for _, c := range []struct {
		name   string
		a, b   corev1.ResourceRequirements
		change func(*Input)
		want   string
	}{
		{"best effort", needs("", ""), needs("", ""), running, "allocated [] requests [] limits []"},
		{"a limit of one only", needs("cpu=100m memory=10Mi", "cpu=100m memory=10Mi"), needs("cpu=100m ephemeral-storage=1Gi", ""), running,
			"allocated [cpu=200m ephemeral-storage=1Gi memory=10Mi] requests [cpu=200m memory=10Mi] limits []"},
		{"the same, not yet running", needs("cpu=100m memory=10Mi", "cpu=100m memory=10Mi"), needs("cpu=100m ephemeral-storage=1Gi", ""), waiting,
			"allocated [cpu=200m ephemeral-storage=1Gi memory=10Mi] requests [cpu=200m ephemeral-storage=1Gi memory=10Mi] limits [cpu=100m memory=10Mi]"},
		{"a limit of both", needs("cpu=100m", "cpu=1"), needs("cpu=100m", "cpu=1"), running, "allocated [cpu=200m] requests [cpu=200m] limits [cpu=2]"},
		{"of the pod", needs("cpu=100m", ""), needs("memory=10Mi", ""), func(in *Input) { in.Pod.Spec.Resources = &whole },
			"allocated [cpu=1 memory=10Mi] requests [cpu=1 memory=10Mi] limits [cpu=2 memory=200Mi]"},
		{"of the pod, under way", needs("cpu=100m", ""), needs("", ""), func(in *Input) {
			in.Pod.Spec.Resources = &whole
			in.Given = map[string]plan.Given{"box": {Own: older, Whole: &older}}
		}, "allocated [cpu=1] requests [cpu=1] limits [cpu=1 memory=200Mi] PodResizeInProgress"},
		{"of a container, under way", needs("cpu=300m", ""), needs("", ""), func(in *Input) {
			in.Given = map[string]plan.Given{"a1": {Own: needs("cpu=100m", "")}}
			in.ResizeFault = "no"
		}, "allocated [cpu=300m] requests [cpu=100m] limits [] PodResizeInProgress Error: no"},
	} {
		s := Compute(input(func(in *Input) {
			in.Pod.Spec.Containers[1].Resources, in.Pod.Spec.Containers[0].Resources = c.a, c.b
			c.change(in)
		}))
		got := fmt.Sprintf("allocated [%s] requests [%s] limits [%s]", words(s.AllocatedResources), words(s.Resources.Requests), words(s.Resources.Limits))
		if r := condition(s, corev1.PodResizeInProgress); r.Type != "" {
			got += " " + string(r.Type)
			if r.Reason != "" {
				got += " " + r.Reason + ": " + r.Message
			}
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestKilledToStartAnew: a pod doesn't end with a container that was killed to be
// started again, whatever it ended with.
func TestKilledToStartAnew(t *testing.T) {
	for name, c := range map[string]struct {
		again bool
		want  corev1.PodPhase
	}{"again": {true, corev1.PodRunning}, "for good": {false, corev1.PodSucceeded}} {
		s := Compute(input(func(in *Input) {
			never(in, 0, 0)
			in.Pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			in.Killed = plan.Killed{"a1": c.again}
		}))
		if s.Phase != c.want {
			t.Errorf("%s: %s, want %s", name, s.Phase, c.want)
		}
	}
	s := Compute(input(func(in *Input) {
		never(in, 143, 0)
		in.Killed = plan.Killed{"a1": true}
		in.Waiting = map[string]plan.Waiting{"a": {Reason: "ImagePullBackOff"}}
	}))
	if a := s.ContainerStatuses[0]; s.Phase != corev1.PodRunning || a.State.Waiting == nil || a.LastTerminationState.Terminated == nil {
		t.Errorf("%s %+v", s.Phase, a)
	}
}

// TestNoEndIsTakenBack: the API refuses a container that runs after an end that its
// policy doesn't start it from again.
func TestNoEndIsTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		policy corev1.RestartPolicy
		code   int32
		shown  bool
	}{
		"never":          {corev1.RestartPolicyNever, 143, false},
		"well":           {corev1.RestartPolicyOnFailure, 0, false},
		"badly":          {corev1.RestartPolicyOnFailure, 143, true},
		"always, anyway": {corev1.RestartPolicyAlways, 0, true},
	} {
		s := Compute(input(func(in *Input) {
			never(in, c.code, 0)
			in.Pod.Spec.RestartPolicy = c.policy
			in.Killed = plan.Killed{"a1": true}
		}))
		a := s.ContainerStatuses[0]
		if shown := a.State.Terminated != nil; shown != c.shown || (!shown && (a.State.Waiting == nil || a.LastTerminationState.Terminated == nil)) || s.Phase != corev1.PodRunning {
			t.Errorf("%s: %s %+v", name, s.Phase, a)
		}
	}
}

// TestInitContainersOfANewSandbox: what they do there shows in the pod's phase, not in
// their states.
func TestInitContainersOfANewSandbox(t *testing.T) {
	in := input(func(in *Input) {
		in.Pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		in.Pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
		in.Actual.Containers = []actual.Container{exited("i0", "i", 0, 0)}
	})
	in.Old = Compute(in)
	in.Actual.Containers = []actual.Container{{ID: "i1", Name: "i", Attempt: 1, State: actual.Running, Started: now}}
	s := Compute(in)
	if i := s.InitContainerStatuses[0]; i.State.Terminated == nil || s.Phase != corev1.PodPending || condition(s, corev1.PodInitialized).Status != corev1.ConditionFalse {
		t.Errorf("%s %+v", s.Phase, i)
	}
	in.Pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if i := Compute(in).InitContainerStatuses[0]; i.State.Running == nil {
		t.Errorf("%+v", i)
	}
}

// TestForgottenInitContainer: what must have succeeded is said to have.
func TestForgottenInitContainer(t *testing.T) {
	s := Compute(input(func(in *Input) { in.Pod.Spec.InitContainers = []corev1.Container{{Name: "i"}} }))
	i := s.InitContainerStatuses[0]
	if i.State.Terminated == nil || i.State.Terminated.Reason != "Completed" || !i.Ready || s.Phase != corev1.PodRunning {
		t.Errorf("%s %+v", s.Phase, i)
	}
}
