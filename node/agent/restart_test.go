package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/checkpoint"
	"github.com/sampan-dev/sampan/node/agent/device"
)

func alive(period int32) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"alive"}}},
		TimeoutSeconds: 1, PeriodSeconds: period, FailureThreshold: 1, SuccessThreshold: 1, InitialDelaySeconds: period}
}

// polite ends well when it is asked to stop.
func polite(p *agenttest.Process) int32 {
	select {
	case <-p.Term:
		return 0
	case <-p.Kill:
		return 137
	}
}

// TestProbeKillIsNoSuccess: a container that is killed by its probe and ends well all
// the same has not done its work. It comes back also after its back-off.
func TestProbeKillIsNoSuccess(t *testing.T) {
	tell(t, "probe_polite", func(s *story) {
		s.engine.Images["polite"] = polite
		s.engine.Answer = func(string, []string) (int32, string) { return 1, "no" }
		c := container("app", "polite")
		c.LivenessProbe = alive(2)
		p := pod("task", c)
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		s.create(p)
		s.pass(30 * time.Second)
	})
}

// TestOtherImageRestarts: a container with another image is started anew in a pod that
// never restarts, also when the image has to be waited for.
func TestOtherImageRestarts(t *testing.T) {
	tell(t, "other_image", func(s *story) {
		p := pod("fixed", container("app", "app"))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		s.create(p)
		s.pass(time.Second)
		image := func(name string) {
			s.say("> image %s", name)
			next := s.get("fixed").DeepCopy()
			next.Spec.Containers[0].Image = name
			if _, err := client.Pods.Update(s.ctx, s.api, next); err != nil {
				t.Fatal(err)
			}
			s.pass(20 * time.Second)
		}
		image("nowhere:1")
		s.engine.Images["other"] = agenttest.Serve
		image("other")
	})
}

// TestOtherImageEndsABackOff: what a container is now hasn't crashed yet.
func TestOtherImageEndsABackOff(t *testing.T) {
	tell(t, "other_image_loop", func(s *story) {
		s.create(pod("mended", container("app", "crash")))
		s.pass(25 * time.Second)
		s.say("> image app")
		next := s.get("mended").DeepCopy()
		next.Spec.Containers[0].Image = "app"
		if _, err := client.Pods.Update(s.ctx, s.api, next); err != nil {
			t.Fatal(err)
		}
		s.pass(5 * time.Second)
	})
}

// startsAllOver is a container with whose exit 1 all of its pod's start over.
func startsAllOver(name, image string) corev1.Container {
	c := container(name, image)
	c.RestartPolicy = new(corev1.ContainerRestartPolicyNever)
	c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{1}}}}
	return c
}

// TestStartsOverOnceASecond: a pod whose containers all start over again and again
// does so once a second.
func TestStartsOverOnceASecond(t *testing.T) {
	tell(t, "start_over", func(s *story) {
		c := startsAllOver("app", "crash")
		p := pod("again", c)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		s.create(p)
		s.pass(10 * time.Second)
		if n := s.get("again").Status.ContainerStatuses[0].RestartCount; n < 8 || n > 10 {
			t.Errorf("%d restarts in ten seconds", n)
		}
	})
}

// TestAllAreCountedThatStartOver: with an init container and one that has to be killed.
// It has begun when the other crashes: were it the same moment, that would be chance.
func TestAllAreCountedThatStartOver(t *testing.T) {
	tell(t, "", func(s *story) {
		c := startsAllOver("app", "crash")
		s.engine.Images["crash"] = agenttest.Exit(20*time.Millisecond, 1)
		s.engine.Images["stubborn"] = agenttest.Stubborn
		p := pod("again", c, container("other", "stubborn"))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{container("first", "once")}
		s.create(p)
		s.pass(10 * time.Second)
		st := s.get("again").Status
		first, app, other := st.InitContainerStatuses[0].RestartCount, st.ContainerStatuses[0].RestartCount, st.ContainerStatuses[1].RestartCount
		if first < 4 || app < first-1 || other < first-1 {
			t.Errorf("first %d, app %d, other %d restarts", first, app, other)
		}
	})
}

// TestAgentRestartsWhileAllStartOver: whenever it does so, all containers start over
// once, and are counted.
func TestAgentRestartsWhileAllStartOver(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, time.Second, 2 * time.Second, 2*time.Second + time.Millisecond, 2*time.Second + 2*time.Millisecond, 3 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			tell(t, "", func(s *story) {
				again := false
				s.engine.Images["once-over"] = func(p *agenttest.Process) int32 {
					if again {
						return agenttest.Serve(p)
					}
					again = true
					time.Sleep(5 * time.Second)
					return 1
				}
				s.engine.Images["stubborn"] = agenttest.Stubborn
				p := pod("over", startsAllOver("app", "once-over"), container("a", "stubborn"), container("b", "stubborn"), container("c", "app"))
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
				s.create(p)
				s.pass(time.Second)
				begun := s.get("over").Status.ContainerStatuses[0].State.Running
				if begun == nil {
					t.Fatal("it doesn't run")
				}
				s.pass(4*time.Second + after)
				s.stopAgent()
				s.pass(3 * time.Second)
				s.startAgent()
				s.pass(20 * time.Second)
				for _, c := range s.get("over").Status.ContainerStatuses {
					if c.RestartCount != 1 || c.State.Running == nil {
						t.Errorf("%s: %d restarts, %+v", c.Name, c.RestartCount, c.State)
					}
				}
			})
		})
	}
}

// TestSidecarsHookAtOnce: a sidecar's preStop hook runs beside that of the others,
// and its end comes after theirs.
func TestSidecarsHookAtOnce(t *testing.T) {
	tell(t, "sidecar_hooks", func(s *story) {
		s.engine.Answer = func(_ string, cmd []string) (int32, string) {
			s.hear(fmt.Sprintf("web hook %v", cmd)) // in whatever order
			return 0, ""
		}
		s.engine.Images["slow"] = func(p *agenttest.Process) int32 {
			<-p.Term
			time.Sleep(5 * time.Second)
			return 0
		}
		always := corev1.ContainerRestartPolicyAlways
		hooked := func(name, image string) corev1.Container {
			c := container(name, image)
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"leave", name}}}}
			return c
		}
		p := pod("web", hooked("main", "slow"))
		for _, name := range []string{"first", "second"} {
			c := hooked(name, "app")
			c.RestartPolicy = &always
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		}
		s.create(p)
		s.pass(5 * time.Second)
		s.delete("web")
		s.pass(time.Minute)
		s.clean()
	})
}

// TestDeferredResizeIsNotSmuggledIn: while a resize waits for room, a container that
// starts anew has what was granted, also under an agent that has been restarted.
func TestDeferredResizeIsNotSmuggledIn(t *testing.T) {
	tell(t, "resize_waits", func(s *story) {
		request := func(cpu string) corev1.ResourceRequirements {
			return corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": quantity(cpu)}}
		}
		c := container("app", "minute")
		s.engine.Images["minute"] = agenttest.Exit(time.Minute, 1)
		c.Resources = request("500m")
		other := container("app", "app")
		other.Resources = request("1")
		s.create(pod("other", other))
		s.create(pod("grows", c))
		s.pass(time.Second)
		next := s.get("grows").DeepCopy()
		next.Spec.Containers[0].Resources = request("1500m")
		if _, err := client.Pods.Update(s.ctx, s.api, next); err != nil {
			t.Fatal(err)
		}
		has := func() {
			st := s.get("grows").Status
			granted, had := st.ContainerStatuses[0].AllocatedResources["cpu"], st.ContainerStatuses[0].Resources.Requests["cpu"]
			whole := st.AllocatedResources["cpu"]
			s.say("granted %s of %s, has %s, shares %d", granted.String(), whole.String(), had.String(), s.engine.Container("grows", "app").GetLinux().GetResources().GetCpuShares())
		}
		s.pass(time.Second)
		has()
		s.pass(time.Minute)
		has()
		s.stopAgent()
		s.say("> the agent starts again")
		s.startAgent()
		s.pass(time.Minute)
		has()
		s.say("> the other goes")
		s.delete("other")
		s.pass(5 * time.Second)
		has()
	})
}

// TestDevicesStayAway: a pod with a device, whose sandbox went while no agent was there
// and whose plugin doesn't come back, waits a while and is refused; one that may not run
// again is at once, unless it has done its work; one whose sandbox is there runs on
// without the plugin.
func TestDevicesStayAway(t *testing.T) {
	tell(t, "devices_stay_away", func(s *story) {
		given := map[string]map[string]map[string]device.Share{}
		s.engine.Images["brief"] = agenttest.Exit(2*time.Second, 0)
		for _, name := range []string{"lost", "stays", "once", "done"} {
			c := container("app", "app")
			if name == "done" {
				c.Image = "brief"
			}
			one := corev1.ResourceList{"example.com/gpu": quantity("1")}
			c.Resources = corev1.ResourceRequirements{Requests: one, Limits: one}
			p := pod(name, c)
			if name == "once" || name == "done" {
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			}
			s.create(p)
			s.pass(time.Second)
			given[string(s.get(name).UID)] = map[string]map[string]device.Share{"app": {"example.com/gpu": {IDs: []string{name}}}}
		}
		s.stopAgent()
		s.pass(5 * time.Second)
		s.say("> the agent starts again, without a sandbox and without the plugin")
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			t.Fatal(err)
		}
		if err := checkpoint.Save(filepath.Join(s.agent.cfg.KubeletRoot, "device-plugins", device.StateFile), map[string]any{
			"Boot": strings.TrimSpace(string(boot)), "Pods": given, "Resources": []string{"example.com/gpu"},
		}); err != nil {
			t.Fatal(err)
		}
		s.engine.LoseSandbox("lost")
		s.engine.LoseSandbox("once")
		s.engine.LoseSandbox("done")
		s.startAgent()
		s.pass(time.Second)
		if st := s.get("once").Status; st.Phase != corev1.PodFailed || st.Reason != "UnexpectedAdmissionError" {
			t.Errorf("what can't run again: %s %s", st.Phase, st.Reason)
		}
		if st := s.get("done").Status; st.Phase != corev1.PodSucceeded || st.Reason != "" {
			t.Errorf("what has done its work: %s %s", st.Phase, st.Reason)
		}
		s.pass(28 * time.Second)
		if got := s.get("lost").Status.Phase; got == corev1.PodFailed {
			t.Error("the plugin had no time to come back")
		}
		s.pass(time.Minute)
		const want = "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices example.com/gpu, which is unexpected"
		if st := s.get("lost").Status; st.Phase != corev1.PodFailed || st.Reason != "UnexpectedAdmissionError" || st.Message != want {
			t.Errorf("%s %s %q", st.Phase, st.Reason, st.Message)
		}
		if got := s.running(); got != "stays/app#0" {
			t.Errorf("running: %s", got)
		}
	})
}

// TestLostOnce: a pod that may not run again, and of which the engine knows nothing any
// more after a restart of the agent, has failed; it gets no new sandbox in between.
func TestLostOnce(t *testing.T) {
	tell(t, "lost_once", func(s *story) {
		p := pod("once", container("app", "app"))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		s.create(p)
		s.pass(time.Second)
		s.stopAgent()
		s.say("> the agent starts again, and all of the pod is gone")
		list, err := s.engine.ListPodSandbox(s.ctx, &rt.ListPodSandboxRequest{})
		if err != nil || len(list.GetItems()) != 1 {
			t.Fatal(list, err)
		}
		if _, err := s.engine.RemovePodSandbox(s.ctx, &rt.RemovePodSandboxRequest{PodSandboxId: list.GetItems()[0].GetId()}); err != nil {
			t.Fatal(err)
		}
		s.startAgent()
		s.pass(time.Minute)
		if got := s.get("once").Status.Phase; got != corev1.PodFailed {
			t.Errorf("it is %s", got)
		}
	})
}
