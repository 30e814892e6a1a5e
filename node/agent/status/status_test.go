package status

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 123456789, time.UTC)

func input(change func(*Input)) Input {
	in := Input{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Generation: 3},
			Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "b"}, {Name: "a"}}},
		},
		Actual: &actual.Pod{
			Sandboxes: []actual.Sandbox{{ID: "box", Ready: true, IPs: []string{"10.0.0.1", "fd00::1"}}},
			Containers: []actual.Container{
				{ID: "a1", Name: "a", State: actual.Running, Started: now},
				{ID: "b1", Name: "b", State: actual.Running, Started: now},
			},
		},
		Ready: func(*corev1.Container, string) bool { return true }, Started: func(*corev1.Container, string) bool { return true },
		HostIPs: []string{"192.0.2.1"}, Runtime: "sampan", Now: now,
	}
	change(&in)
	for i := range in.Actual.Containers {
		if c := &in.Actual.Containers[i]; c.SandboxID == "" {
			c.SandboxID = "box"
		}
	}
	return in
}

func condition(s corev1.PodStatus, t corev1.PodConditionType) corev1.PodCondition {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c
		}
	}
	return corev1.PodCondition{}
}

func TestRunningPod(t *testing.T) {
	in := input(func(*Input) {})
	s := Compute(in)
	if s.Phase != corev1.PodRunning || s.PodIP != "10.0.0.1" || len(s.PodIPs) != 2 || s.HostIP != "192.0.2.1" || s.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("%+v", s)
	}
	if s.ContainerStatuses[0].Name != "a" || s.ContainerStatuses[0].ContainerID != "sampan://a1" || !*s.ContainerStatuses[0].Started {
		t.Errorf("first container %+v", s.ContainerStatuses[0])
	}
	if c := condition(s, corev1.PodReady); c.Status != corev1.ConditionTrue || c.ObservedGeneration != 3 {
		t.Errorf("ready condition %+v", c)
	}
	in.Old, in.Now = s, now.Add(time.Hour)
	if again := Compute(in); !equality.Semantic.DeepEqual(again, s) {
		t.Error("an hour later, with nothing changed, the status differs")
	}
}

func TestUnreadyContainersAreNamed(t *testing.T) {
	s := Compute(input(func(in *Input) {
		in.Ready = func(c *corev1.Container, _ string) bool { return c.Name != "b" }
		in.Pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/mine", Status: corev1.ConditionTrue}}
	}))
	c := condition(s, corev1.PodReady)
	if c.Reason != "ContainersNotReady" || c.Message != "containers with unready status: [b]" {
		t.Errorf("%+v", c)
	}
	if condition(s, "example.com/mine").Status != corev1.ConditionTrue {
		t.Error("somebody else's condition is lost")
	}
}

func TestReadinessGates(t *testing.T) {
	gate := func(have ...corev1.PodCondition) corev1.PodCondition {
		return condition(Compute(input(func(in *Input) {
			in.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "g"}}
			in.Pod.Status.Conditions = have
		})), corev1.PodReady)
	}
	if c := gate(); c.Message != `corresponding condition of pod readiness gate "g" does not exist.` || c.Reason != "ReadinessGatesNotReady" {
		t.Errorf("%+v", c)
	}
	if c := gate(corev1.PodCondition{Type: "g", Status: corev1.ConditionFalse}); c.Message != `the status of pod readiness gate "g" is not "True", but False` {
		t.Errorf("%+v", c)
	}
	if c := gate(corev1.PodCondition{Type: "g", Status: corev1.ConditionTrue}); c.Status != corev1.ConditionTrue {
		t.Errorf("%+v", c)
	}
}

func exited(id, name string, attempt, code int32) actual.Container {
	return actual.Container{ID: id, Name: name, State: actual.Exited, ExitCode: code, Attempt: attempt, Started: now, Finished: now}
}

func TestPhases(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		want   corev1.PodPhase
	}{
		"nothing yet": {func(in *Input) { in.Actual = &actual.Pod{} }, corev1.PodPending},
		"one of two":  {func(in *Input) { in.Actual.Containers = in.Actual.Containers[:1] }, corev1.PodPending},
		"crashing": {func(in *Input) {
			in.Actual.Containers = []actual.Container{exited("a1", "a", 0, 1), exited("b1", "b", 0, 1)}
		}, corev1.PodRunning},
		"never, one failed": {func(in *Input) { never(in, 0, 1) }, corev1.PodFailed},
		"never, both well":  {func(in *Input) { never(in, 0, 0) }, corev1.PodSucceeded},
		"on failure, one failed": {func(in *Input) {
			never(in, 0, 1)
			in.Pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		}, corev1.PodRunning},
		"deleted, brought down": {func(in *Input) {
			never(in, 143, 0)
			in.Pod.Spec.RestartPolicy, in.Ended = corev1.RestartPolicyAlways, true
		}, corev1.PodFailed},
		"failed for good, one still runs": {func(in *Input) {
			in.Failed = &Verdict{Reason: "DeadlineExceeded"}
			in.Old.Phase = corev1.PodRunning
		}, corev1.PodRunning},
		"evicted, both well, not down": {func(in *Input) {
			in.Actual.Containers = []actual.Container{exited("a1", "a", 0, 0), exited("b1", "b", 0, 0)}
			in.Failed, in.Old.Phase = &Verdict{Reason: "Evicted", Yields: true}, corev1.PodRunning
		}, corev1.PodRunning},
		"evicted, both well": {func(in *Input) {
			in.Actual.Containers = []actual.Container{exited("a1", "a", 0, 0), exited("b1", "b", 0, 0)}
			in.Failed, in.Ended = &Verdict{Reason: "Evicted", Yields: true}, true
		}, corev1.PodSucceeded},
		"evicted, one failed": {func(in *Input) {
			in.Actual.Containers = []actual.Container{exited("a1", "a", 0, 0), exited("b1", "b", 0, 137)}
			in.Failed, in.Ended = &Verdict{Reason: "Evicted", Yields: true}, true
		}, corev1.PodFailed},
		"out of time, both well": {func(in *Input) {
			never(in, 0, 0)
			in.Failed, in.Ended = &Verdict{Reason: "DeadlineExceeded"}, true
		}, corev1.PodFailed},
		"once succeeded": {func(in *Input) { in.Old.Phase = corev1.PodSucceeded }, corev1.PodSucceeded},
		"init failed": {func(in *Input) {
			in.Pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			in.Pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
			in.Actual.Containers = []actual.Container{exited("i1", "i", 0, 2)}
		}, corev1.PodFailed},
		"init goes on": {func(in *Input) {
			in.Pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
			in.Actual.Containers = []actual.Container{{ID: "i1", Name: "i", State: actual.Running}}
		}, corev1.PodPending},
		"init goes on in a sandbox made anew": {func(in *Input) {
			anew(in, actual.Container{ID: "i2", Name: "i", State: actual.Running})
		}, corev1.PodPending},
		"sidecar starts in a sandbox made anew": {func(in *Input) {
			anew(in, exited("i2", "i", 0, 0), actual.Container{ID: "s2", Name: "s", State: actual.Running})
			in.Started = func(c *corev1.Container, _ string) bool { return c.Name != "s" }
		}, corev1.PodPending},
		"sidecar starts again beside what runs": {func(in *Input) {
			anew(in)
			in.Actual.Sandboxes = in.Actual.Sandboxes[1:]
			in.Actual.Containers = append([]actual.Container{{ID: "s2", Name: "s", SandboxID: "box", State: actual.Running}}, in.Actual.Containers...)
			in.Started = func(c *corev1.Container, _ string) bool { return c.Name != "s" }
		}, corev1.PodRunning},
	} {
		if got := Compute(input(c.change)).Phase; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// anew gives the pod, which ran with an init container i and a sidecar s, another sandbox
// with the containers in it.
func anew(in *Input, inside ...actual.Container) {
	always := corev1.ContainerRestartPolicyAlways
	in.Pod.Spec.InitContainers = []corev1.Container{{Name: "i"}, {Name: "s", RestartPolicy: &always}}
	in.Actual.Sandboxes = append([]actual.Sandbox{{ID: "box2", Ready: true}}, in.Actual.Sandboxes...)
	for i := range inside {
		inside[i].SandboxID = "box2"
	}
	before := []actual.Container{exited("i1", "i", 0, 0), exited("s1", "s", 0, 137), exited("a1", "a", 0, 137), exited("b1", "b", 0, 137)}
	in.Actual.Containers = slices.Concat(inside, before)
}

func never(in *Input, a, b int32) {
	in.Pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	in.Actual.Containers = []actual.Container{exited("a1", "a", 0, a), exited("b1", "b", 0, b)}
}

func TestCrashLoopShowsTheLastEnd(t *testing.T) {
	s := Compute(input(func(in *Input) {
		in.Actual.Containers = append([]actual.Container{exited("a3", "a", 2, 7)}, exited("a2", "a", 1, 3), in.Actual.Containers[1])
		in.Waiting = map[string]plan.Waiting{"a": {Reason: "CrashLoopBackOff", Message: "m"}}
	}))
	a := s.ContainerStatuses[0]
	if a.State.Waiting == nil || a.State.Waiting.Reason != "CrashLoopBackOff" || a.RestartCount != 2 || a.LastTerminationState.Terminated.ExitCode != 7 {
		t.Errorf("%+v", a)
	}
	if s.Phase != corev1.PodRunning {
		t.Errorf("phase %s", s.Phase)
	}
}

func TestLostContainerIsSaidToBeLost(t *testing.T) {
	s := Compute(input(func(in *Input) {
		in.Ended = true
		in.Actual = &actual.Pod{}
		in.Old.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "a", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, ContainerID: "sampan://a1"},
			{Name: "b", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 0, Message: "bye"}}},
		}
	}))
	a, b := s.ContainerStatuses[0].State.Terminated, s.ContainerStatuses[1].State.Terminated
	if a == nil || a.Reason != "ContainerStatusUnknown" || a.ExitCode != 137 || b == nil || b.Message != "bye" {
		t.Errorf("a %+v b %+v", a, b)
	}
}

// All containers start over because x has ended with 42: see plan's transcripts.
func TestRestartOfAllContainers(t *testing.T) {
	rules := []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
	never := corev1.ContainerRestartPolicyNever
	in := input(func(in *Input) {
		in.Pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		in.Pod.Spec.Containers[0].RestartPolicy, in.Pod.Spec.Containers[0].RestartPolicyRules = &never, rules
	})
	first, second := in.Pod.Spec.Containers[0].Name, in.Pod.Spec.Containers[1].Name
	running := actual.Container{ID: "b0", Name: second, SandboxID: in.Actual.Sandboxes[0].ID, State: actual.Running, Started: now}
	in.Actual.Containers = []actual.Container{running, exited("a0", first, 0, 42)}
	in.Old = Compute(in)
	if c := condition(in.Old, corev1.AllContainersRestarting); c.Status != corev1.ConditionTrue || c.Reason != "RestartAllContainersStarted" || in.Old.Phase != corev1.PodRunning {
		t.Fatalf("%s %+v", in.Old.Phase, c)
	}
	in.Actual.Containers = nil // all are removed
	s := Compute(in)
	if c := condition(s, corev1.AllContainersRestarting); c.Status != corev1.ConditionFalse || s.Phase != corev1.PodRunning {
		t.Errorf("%s %+v", s.Phase, c)
	}
	for _, st := range s.ContainerStatuses {
		if w, last := st.State.Waiting, st.LastTerminationState.Terminated; w == nil || w.Reason != "RestartingAllContainers" || last == nil || last.ExitCode != 137 || st.RestartCount != 1 {
			t.Errorf("%+v", st)
		}
	}
	in.Old = s
	in.Actual.Containers = []actual.Container{{ID: "a1", Name: first, SandboxID: running.SandboxID, Attempt: NextAttempt(&s.ContainerStatuses[0]), State: actual.Running, Started: now}}
	s = Compute(in)
	if st := find(s.ContainerStatuses, first); st.RestartCount != 1 || st.LastTerminationState.Terminated == nil || st.LastTerminationState.Terminated.Reason != "RestartingAllContainers" {
		t.Errorf("%+v", st)
	}
}

// A sidecar whose end has all start over: a pod that restarts nothing else is not over
// when the last of the others has been killed for it.
func TestSidecarThatHasAllStartOver(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	in := input(func(in *Input) {
		in.Pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		in.Pod.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: &always, RestartPolicyRules: []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}}}
		in.Pod.Spec.Containers = []corev1.Container{{Name: "a"}}
		in.Old.Phase = corev1.PodRunning
		in.Actual.Containers = []actual.Container{exited("a0", "a", 0, 137), exited("s0", "s", 0, 42)}
	})
	for _, left := range [][]actual.Container{in.Actual.Containers, in.Actual.Containers[1:], nil} {
		in.Actual.Containers = left
		in.Old = Compute(in)
		if over(in.Old.Phase) {
			t.Fatalf("with %d containers left: %s", len(left), in.Old.Phase)
		}
	}
	for _, list := range [][]corev1.ContainerStatus{in.Old.InitContainerStatuses, in.Old.ContainerStatuses} {
		if list[0].RestartCount != 1 || list[0].LastTerminationState.Terminated == nil {
			t.Errorf("%+v", list[0])
		}
	}
}

// An init container that was removed first, since all start over, is told of once.
func TestInitContainerThatStartsOver(t *testing.T) {
	policy := corev1.ContainerRestartPolicyNever
	in := input(func(in *Input) {
		in.Pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
		in.Pod.Spec.Containers = []corev1.Container{{Name: "a", RestartPolicy: &policy, RestartPolicyRules: []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}}}
		in.Actual.Containers = []actual.Container{exited("a0", "a", 0, 42), exited("i0", "i", 0, 0)}
	})
	in.Old = Compute(in)
	in.Actual.Containers = in.Actual.Containers[:1]
	for range 3 {
		in.Old = Compute(in)
		if i := in.Old.InitContainerStatuses[0]; i.State.Waiting == nil || i.RestartCount != 1 {
			t.Errorf("%+v", i)
		}
	}
}

func TestMountsThatAreReadOnlyThroughout(t *testing.T) {
	enabled, wished := corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible
	able, unable := true, false
	var old corev1.PodStatus
	for _, c := range []struct {
		name       string
		throughout *bool
		want       string
	}{
		{"not known", nil, "w r:Disabled e:Disabled i:Disabled "},
		{"able", &able, "w r:Disabled e:Enabled i:Enabled "},
		{"not known any more", nil, "w r:Disabled e:Enabled i:Enabled "},
		{"unable", &unable, "w r:Disabled e:Disabled i:Disabled "},
	} {
		old = Compute(input(func(in *Input) {
			in.Old, in.Throughout = old, c.throughout
			in.Pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "w", MountPath: "/w"}, {Name: "r", MountPath: "/r", ReadOnly: true},
				{Name: "e", MountPath: "/e", ReadOnly: true, RecursiveReadOnly: &enabled}, {Name: "i", MountPath: "/i", ReadOnly: true, RecursiveReadOnly: &wished}}
		}))
		got := ""
		for _, m := range old.ContainerStatuses[0].VolumeMounts {
			got += m.Name
			if m.RecursiveReadOnly != nil {
				got += ":" + string(*m.RecursiveReadOnly)
			}
			got += " "
		}
		if got != c.want {
			t.Errorf("%s: mounts %s, want %s", c.name, got, c.want)
		}
	}
}

// A pod that the node has refused shows no containers: not now, and not to an agent
// that only knows what the API says.
func TestRefusedPodStaysAsItWas(t *testing.T) {
	refused := input(func(in *Input) {
		in.Actual, in.Ended = &actual.Pod{}, true
		in.Failed = &Verdict{Reason: "OutOfcpu", Message: "Pod was rejected: no"}
	})
	s := Compute(refused)
	if s.Phase != corev1.PodFailed || s.Reason != "OutOfcpu" || len(s.ContainerStatuses) != 0 {
		t.Errorf("refused: %+v", s)
	}
	refused.Failed, refused.Old = nil, s
	if again := Compute(refused); !equality.Semantic.DeepEqual(again, s) {
		t.Errorf("after a restart: %+v", again)
	}
}

// TestSandboxCondition: why a pod's sandbox has to be made, in upstream's words.
func TestSandboxCondition(t *testing.T) {
	ready := actual.Sandbox{ID: "box", Ready: true, IPs: []string{"10.0.0.1"}}
	for want, have := range map[string][]actual.Sandbox{
		"":                      {ready},
		"no pod sandbox exists": nil,
		"multiple pod sandboxes are ready and need to be reconciled": {ready, ready},
		"pod sandbox is not ready":                                   {{ID: "box"}, ready},
		"pod sandbox has no IP address":                              {{ID: "box", Ready: true}},
	} {
		c := condition(Compute(input(func(in *Input) { in.Actual.Sandboxes = have })), corev1.PodReadyToStartContainers)
		if is := c.Status == corev1.ConditionTrue; c.Message != want || is != (want == "") || (c.Reason == "PodSandboxNotReady") == is {
			t.Errorf("sandboxes %+v: %+v, want %q", have, c, want)
		}
	}
	c := condition(Compute(input(func(in *Input) { in.Actual.Sandboxes = []actual.Sandbox{{ID: "box", Ready: true, HostNet: true}} })), corev1.PodReadyToStartContainers)
	if c.Status != corev1.ConditionTrue {
		t.Errorf("in the node's network: %+v", c)
	}
}

// TestReadyToStartNeedsVolumes: a pod with a sandbox isn't ready to start containers
// before its volumes are there; one that was stays so when they are looked at again.
func TestReadyToStartNeedsVolumes(t *testing.T) {
	was := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}
	for _, c := range []struct {
		name   string
		change func(*Input)
		want   string
	}{
		{"not yet", func(*Input) {}, "False PodSandboxNotReady volumes are not mounted"},
		{"mounted", func(in *Input) { in.Unmounted = false }, "True  "},
		{"it was", func(in *Input) { in.Old.Conditions = []corev1.PodCondition{was} }, "True  "},
		{"a container was made", func(in *Input) { in.Actual.Containers = []actual.Container{{ID: "a1", Name: "a", SandboxID: "box"}} }, "True  "},
		{"nor a sandbox", func(in *Input) { in.Actual.Sandboxes = nil }, "False PodSandboxNotReady no pod sandbox exists"},
	} {
		got := condition(Compute(input(func(in *Input) {
			in.Unmounted, in.Old.Conditions = true, nil
			in.Actual.Containers, in.Actual.Sandboxes = nil, []actual.Sandbox{{ID: "box", Ready: true, IPs: []string{"10.0.0.1"}}}
			c.change(in)
		})), corev1.PodReadyToStartContainers)
		if text := fmt.Sprintf("%s %s %s", got.Status, got.Reason, got.Message); text != c.want {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

func TestSucceededPodIsInitialized(t *testing.T) {
	s := Compute(input(func(in *Input) {
		in.Ended = true
		in.Pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		for i := range in.Actual.Containers {
			in.Actual.Containers[i].State = actual.Exited
		}
	}))
	if c := condition(s, corev1.PodInitialized); s.Phase != corev1.PodSucceeded || c.Status != corev1.ConditionTrue || c.Reason != "PodCompleted" {
		t.Errorf("%s %+v", s.Phase, c)
	}
}

// TestRefusedPodSaysNoMore: nothing was made for it, and nothing is told but why.
func TestRefusedPodSaysNoMore(t *testing.T) {
	refuse := func(in *Input) {
		in.Actual = &actual.Pod{}
		in.Failed = &Verdict{Reason: "OutOfcpu", Message: "too little"}
		in.Pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/mine", Status: corev1.ConditionTrue}}
	}
	s := Compute(input(refuse))
	if s.Phase != corev1.PodFailed || s.Reason != "OutOfcpu" || s.HostIP != "" || len(s.Conditions) != 1 || condition(s, "example.com/mine").Status != corev1.ConditionTrue {
		t.Errorf("%+v", s)
	}
	s = Compute(input(func(in *Input) {
		refuse(in)
		in.Old.Conditions = []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}
	}))
	if c := condition(s, corev1.PodInitialized); s.HostIP == "" || c.Status != corev1.ConditionTrue {
		t.Errorf("one of which more had been told: %+v", s)
	}
}

// What the node stops is not at fault, whatever its containers come to; what has
// outstayed its own time is.
func TestDisruption(t *testing.T) {
	for name, c := range map[string]struct {
		verdict *Verdict
		codes   [2]int32
		want    bool
	}{
		"preempted, both well":   {&Verdict{Reason: "Preempting", Disruption: "preempted", Yields: true}, [2]int32{0, 0}, true},
		"preempted, one failed":  {&Verdict{Reason: "Preempting", Disruption: "preempted", Yields: true}, [2]int32{0, 137}, true},
		"out of time, both well": {&Verdict{Reason: "DeadlineExceeded"}, [2]int32{0, 0}, false},
		"on its own":             {nil, [2]int32{0, 0}, false},
	} {
		in := input(func(in *Input) {
			never(in, c.codes[0], c.codes[1])
			in.Failed, in.Ended = c.verdict, true
		})
		got := condition(Compute(in), corev1.DisruptionTarget)
		if (got.Status == corev1.ConditionTrue) != c.want || c.want && (got.Reason != corev1.PodReasonTerminationByKubelet || got.Message != "preempted") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
