package agent

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

func TestRunsAndStopsAPod(t *testing.T) {
	tell(t, "run_and_stop", func(s *story) {
		s.create(pod("web", container("app", "app")))
		s.pass(time.Minute)
		marks := s.marks.Of(string(s.get("web").UID))
		for _, m := range marks {
			s.say("mark: %s %s", m.Step, m.Name)
		}
		s.delete("web")
		s.pass(time.Minute)
		s.clean()
	})
}

func TestRestartsWithBackOff(t *testing.T) {
	tell(t, "crash_loop", func(s *story) {
		s.create(pod("bad", container("app", "crash")))
		s.pass(8 * time.Minute)
	})
}

func TestJobEnds(t *testing.T) {
	tell(t, "completes", func(s *story) {
		p := pod("job", container("ok", "once"), container("slow", "slow"))
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		s.engine.Images["slow"] = agenttest.Exit(5*time.Second, 0)
		s.create(p)
		s.pass(time.Minute)
		s.delete("job")
		s.pass(time.Minute)
		s.clean()
	})
}

func TestNeverRestarts(t *testing.T) {
	tell(t, "never", func(s *story) {
		p := pod("once", container("app", "crash"))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		s.create(p)
		s.pass(time.Minute)
	})
}

// TestBadImageName: what is no name is not looked for.
func TestBadImageName(t *testing.T) {
	tell(t, "bad_name", func(s *story) {
		s.create(pod("named", container("app", "Bad:UPPER")))
		s.pass(time.Second)
	})
}

func TestInitContainersAndSidecar(t *testing.T) {
	tell(t, "init_sidecar", func(s *story) {
		always := corev1.ContainerRestartPolicyAlways
		side := container("proxy", "app")
		side.RestartPolicy = &always
		side.StartupProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"up"}}},
			PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 30, SuccessThreshold: 1,
		}
		up := time.Now().Add(3500 * time.Millisecond)
		s.engine.Answer = func(string, []string) (int32, string) {
			if time.Now().Before(up) {
				return 1, "not yet"
			}
			return 0, ""
		}
		p := pod("full", container("main", "work"))
		s.engine.Images["work"] = agenttest.Exit(20*time.Second, 0)
		s.engine.Images["prepare"] = agenttest.Exit(time.Second, 0)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{container("first", "prepare"), side, container("last", "prepare")}
		s.create(p)
		s.pass(time.Minute)
	})
}

func TestInitFailureFailsThePod(t *testing.T) {
	tell(t, "init_fails", func(s *story) {
		p := pod("doomed", container("main", "app"))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{container("check", "crash")}
		s.create(p)
		s.pass(time.Minute)
	})
}

func TestImagePullBacksOff(t *testing.T) {
	tell(t, "image_pull", func(s *story) {
		s.engine.PullTime = 2 * time.Second
		s.create(pod("far", container("app", "remote:1")))
		s.pass(50 * time.Second)
		s.say("> the registry gets the image")
		s.engine.Do(func() { s.engine.Registry["remote:1"] = agenttest.Serve })
		s.pass(time.Minute)
	})
}

// An image that one pod pulled with its credentials is there for those alone that
// could have pulled it too; who may not have it is not told that it is there.
func TestPulledImagesAreNotForEverybody(t *testing.T) {
	tell(t, "image_private", func(s *story) {
		s.engine.Do(func() {
			s.engine.Registry["r.example/app:1"] = agenttest.Serve
			s.engine.Private = map[string]string{"r.example/app:1": "right"}
		})
		for name, password := range map[string]string{"good": "right", "same": "right", "bad": "wrong"} {
			text := fmt.Sprintf(`{"auths":{"r.example":{"username":"u","password":%q}}}`, password)
			secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(text)}}
			secret.Name, secret.Namespace, secret.UID = name, "default", types.UID("uid-"+name)
			s.api.Seed(secret)
		}
		private := func(name string, policy corev1.PullPolicy, secrets ...string) {
			c := container("app", "r.example/app:1")
			c.ImagePullPolicy = policy
			p := pod(name, c)
			for _, secret := range secrets {
				p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
			}
			s.create(p)
			s.pass(time.Second)
		}
		private("first", corev1.PullIfNotPresent, "absent", "bad", "good")
		private("second", corev1.PullIfNotPresent, "same")
		private("third", corev1.PullNever, "good")
		private("without", corev1.PullIfNotPresent, "absent")
		private("wrong", corev1.PullIfNotPresent, "bad")
		private("never", corev1.PullNever)
		s.pass(500 * time.Millisecond)
		for _, name := range []string{"without", "wrong", "never"} {
			if err := client.Pods.Delete(s.ctx, s.api, "default", name, deleteNow()); err != nil {
				t.Fatal(err)
			}
		}
		s.pass(30 * time.Second)
		s.stopAgent()
		s.say("> the agent starts again")
		s.startAgent()
		private("later", corev1.PullIfNotPresent, "good")
		private("stranger", corev1.PullIfNotPresent)
	})
}

// The image that a checkpoint was made of is for those alone that might name it, too.
func TestCheckpointsAreNoWayToImages(t *testing.T) {
	tell(t, "image_checkpoint", func(s *story) {
		const private, holds = "r.example/app:1", "checkpoint:1"
		s.engine.Do(func() {
			s.engine.Registry[private], s.engine.Registry[holds] = agenttest.Serve, agenttest.Serve
			s.engine.Private = map[string]string{private: "right"}
			s.engine.Below = map[string]string{holds: private}
		})
		secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{
			corev1.DockerConfigJsonKey: []byte(`{"auths":{"r.example":{"username":"u","password":"right"}}}`)}}
		secret.Name, secret.Namespace, secret.UID = "good", "default", "uid-good"
		s.api.Seed(secret)
		for _, c := range []struct{ name, image, secret string }{{"first", private, "good"}, {"owner", holds, "good"}, {"stranger", holds, ""}} {
			p := pod(c.name, container("app", c.image))
			if c.secret != "" {
				p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: c.secret}}
			}
			s.create(p)
			s.pass(time.Second)
		}
	})
}

// The image of a volume is pulled before that of the container which mounts it, and
// other containers don't wait for it.
func TestImageVolume(t *testing.T) {
	tell(t, "image_volume", func(s *story) {
		s.engine.PullTime = 2 * time.Second
		c := container("app", "app")
		c.VolumeMounts = []corev1.VolumeMount{{Name: "files", MountPath: "/files", SubPath: "part"}}
		p := pod("shows", c, container("other", "app"))
		p.Spec.Volumes = []corev1.Volume{{Name: "files", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "content:latest"}}}}
		s.create(p)
		s.pass(15 * time.Second)
		s.say("> the registry gets the image")
		s.engine.Do(func() { s.engine.Registry["content:latest"] = agenttest.Serve })
		s.pass(time.Minute)
		for _, m := range s.engine.Container("shows", "app").GetMounts() {
			if m.GetImage() != nil {
				s.say("mount of %s, part %s, at %s, host path %q, read-only %v", m.GetImage().GetImage(), m.GetImageSubPath(), m.GetContainerPath(), m.GetHostPath(), m.GetReadonly())
			}
		}
	})
}

func TestMissingConfigMapHoldsTheContainer(t *testing.T) {
	tell(t, "config_missing", func(s *story) {
		c := container("app", "app")
		c.Env = []corev1.EnvVar{{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color",
		}}}}
		s.create(pod("waits", c))
		s.pass(5 * time.Second)
		s.say("> create configmap settings")
		cm := &corev1.ConfigMap{Data: map[string]string{"color": "blue"}}
		cm.Name, cm.Namespace = "settings", "default"
		if _, err := client.ConfigMaps.Create(s.ctx, s.api, cm); err != nil {
			t.Fatal(err)
		}
		s.pass(3 * time.Second)
		for _, kv := range s.engine.Container("waits", "app").GetEnvs() {
			if kv.GetKey() == "COLOR" {
				s.say("COLOR=%s", kv.GetValue())
			}
		}
	})
}

func TestProbes(t *testing.T) {
	tell(t, "probes", func(s *story) {
		ready, alive := false, true
		s.engine.Answer = func(_ string, cmd []string) (int32, string) {
			if (cmd[0] == "ready" && !ready) || (cmd[0] == "alive" && !alive) {
				return 1, "no " + cmd[0]
			}
			return 0, ""
		}
		probe := func(cmd string) *corev1.Probe {
			return &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}},
				PeriodSeconds: 10, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1,
			}
		}
		c := container("app", "app")
		c.ReadinessProbe, c.LivenessProbe = probe("ready"), probe("alive")
		s.create(pod("probed", c))
		s.pass(15 * time.Second)
		s.engine.Do(func() { ready = true })
		s.say("> becomes ready")
		s.pass(20 * time.Second)
		s.say("> stops living")
		s.engine.Do(func() { alive = false })
		s.pass(25 * time.Second)
		s.engine.Do(func() { alive = true })
		s.pass(20 * time.Second)
	})
}

func TestHooksAndGrace(t *testing.T) {
	tell(t, "hooks", func(s *story) {
		s.engine.Answer = func(_ string, cmd []string) (int32, string) {
			s.say("hook %v", cmd)
			return 0, ""
		}
		s.engine.Images["stubborn"] = agenttest.Stubborn
		c := container("app", "stubborn")
		c.Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"greet"}}},
			PreStop:   &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 4}},
		}
		p := pod("polite", c)
		*p.Spec.TerminationGracePeriodSeconds = 10
		s.create(p)
		s.pass(time.Second)
		s.delete("polite")
		s.pass(time.Minute)
		s.clean()
	})
}

// TestFailedPostStart: the container goes as any other does, by its preStop hook.
func TestFailedPostStart(t *testing.T) {
	tell(t, "post_start_fails", func(s *story) {
		s.engine.Answer = func(_ string, cmd []string) (int32, string) {
			s.say("hook %v", cmd)
			return 1, "no"
		}
		c := container("app", "app")
		c.Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"greet"}}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"part"}}},
		}
		s.create(pod("rude", c))
		s.pass(time.Second)
	})
}

// TestProbeKillsBackOff: each container fails its probe 15 s after its start. The
// first two are followed at once, the third too since the second ended more than
// 10 s ago; then it is held.
func TestProbeKillsBackOff(t *testing.T) {
	tell(t, "probe_kills", func(s *story) {
		s.engine.Answer = func(string, []string) (int32, string) { return 1, "no" }
		c := container("app", "app")
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"alive"}}},
			TimeoutSeconds: 1, PeriodSeconds: 5, FailureThreshold: 3, SuccessThreshold: 1, InitialDelaySeconds: 5}
		s.create(pod("sick", c))
		s.pass(2 * time.Minute)
	})
}

func TestActiveDeadline(t *testing.T) {
	tell(t, "deadline", func(s *story) {
		p := pod("late", container("app", "app"))
		limit := int64(20)
		p.Spec.ActiveDeadlineSeconds = &limit
		s.create(p)
		s.pass(time.Minute)
	})
}

// TestNetworkNotReady: a sandbox that fails for want of a network is told as that.
func TestNetworkNotReady(t *testing.T) {
	tell(t, "network_not_ready", func(s *story) {
		cidr := s.engine.PodCIDR()
		set := func(cidr string, fail error) {
			s.engine.Do(func() { s.engine.FailSandbox = fail })
			_, err := s.engine.UpdateRuntimeConfig(s.ctx, &rt.UpdateRuntimeConfigRequest{
				RuntimeConfig: &rt.RuntimeConfig{NetworkConfig: &rt.NetworkConfig{PodCidr: cidr}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		set("", errors.New("no address to give"))
		s.create(pod("waits", container("app", "app")))
		s.pass(500 * time.Millisecond)
		s.say("> the network is there, and the next sandbox fails for another reason")
		set(cidr, errors.New("disk is full"))
		s.pass(3 * time.Second)
		set(cidr, nil)
		s.pass(time.Minute)
	})
}

// TestCountsGoOnWhenTheEngineForgets: the node went down and up again, and what
// ran there is known from the API alone.
func TestCountsGoOnWhenTheEngineForgets(t *testing.T) {
	tell(t, "forgotten", func(s *story) {
		s.engine.Images["crash"] = agenttest.Exit(time.Second, 1)
		s.create(pod("steady", container("app", "app")))
		s.create(pod("crashing", container("app", "crash")))
		s.pass(25 * time.Second)
		s.say("> agent stops, and the engine forgets everything")
		s.stopAgent()
		s.engine.Forget()
		s.startAgent()
		s.pass(5 * time.Second)
		s.say("> once more")
		s.stopAgent()
		s.engine.Forget()
		s.startAgent()
		s.pass(5 * time.Second)
		// A container that is there is counted by the engine again.
		s.engine.Crash("steady", "app", 1)
		s.pass(time.Minute)
	})
}

func TestAgentRestartAdoptsContainers(t *testing.T) {
	tell(t, "adopt", func(s *story) {
		c := container("app", "app")
		c.ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}},
			PeriodSeconds: 5, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1,
		}
		s.create(pod("kept", c))
		s.create(pod("orphan", container("app", "app")))
		s.pass(10 * time.Second)
		s.say("> agent stops; running: %s", s.running())
		s.stopAgent()
		o := s.get("orphan").DeepCopy()
		o.Finalizers = nil
		if _, err := client.Pods.Update(s.ctx, s.api, o); err != nil {
			t.Fatal(err)
		}
		if err := client.Pods.Delete(s.ctx, s.api.Memory, "default", "orphan", deleteNow()); err != nil {
			t.Fatal(err)
		}
		s.pass(10 * time.Second)
		s.startAgent()
		s.say("> agent is back")
		s.pass(time.Minute)
		s.say("running: %s", s.running())
	})
}

func TestLostSandboxIsMadeAgain(t *testing.T) {
	tell(t, "sandbox_lost", func(s *story) {
		p := pod("web", container("app", "app"))
		s.engine.Images["prepare"] = agenttest.Exit(time.Second, 0)
		p.Spec.InitContainers = []corev1.Container{container("init", "prepare")}
		s.create(p)
		s.pass(10 * time.Second)
		s.say("> the sandbox dies")
		s.engine.LoseSandbox("web")
		s.pass(20 * time.Second)
		s.say("running: %s", s.running())
	})
}

func TestRefusesWhatDoesNotFit(t *testing.T) {
	tell(t, "refused", func(s *story) {
		big := container("app", "app")
		big.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: quantity("3")}
		s.create(pod("big", big))
		wrong := pod("elsewhere", container("app", "app"))
		wrong.Spec.NodeSelector = map[string]string{"disk": "ssd"}
		s.create(wrong)
		s.pass(time.Second)
	})
}

func TestSameNameWaitsForItsPredecessor(t *testing.T) {
	tell(t, "same_name", func(s *story) {
		s.engine.Images["stubborn"] = agenttest.Stubborn
		old := pod("sts-0", container("app", "stubborn"))
		old.Finalizers = nil
		*old.Spec.TerminationGracePeriodSeconds = 10
		s.create(old)
		s.pass(time.Second)
		s.say("> replaced by force")
		if err := client.Pods.Delete(s.ctx, s.api.Memory, "default", "sts-0", deleteNow()); err != nil {
			t.Fatal(err)
		}
		next := pod("sts-0", container("app", "app"))
		next.UID = "uid-next"
		s.create(next)
		for range 14 {
			if n := len(s.engine.Running()); n > 1 {
				t.Fatalf("%d pods of one name run at once: %s", n, s.running())
			}
			s.pass(time.Second)
		}
	})
}

func TestResizeInPlace(t *testing.T) {
	tell(t, "resize", func(s *story) {
		resources := func(cpu, memory string) corev1.ResourceRequirements {
			return corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": quantity(cpu), "memory": quantity(memory)}}
		}
		c := container("app", "app")
		c.Resources = resources("500m", "64Mi")
		c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
		s.create(pod("grows", c))
		s.pass(time.Second)
		for _, r := range []corev1.ResourceRequirements{resources("1", "64Mi"), resources("5", "64Mi"), resources("1", "128Mi")} {
			next := s.get("grows").DeepCopy()
			next.Spec.Containers[0].Resources = r
			cpu, memory := r.Requests["cpu"], r.Requests["memory"]
			s.say("> resize to %s cpu, %s memory", cpu.String(), memory.String())
			if _, err := client.Pods.Update(s.ctx, s.api, next); err != nil {
				t.Fatal(err)
			}
			s.pass(5 * time.Second)
			got := s.get("grows").Status
			for _, cond := range got.Conditions {
				if cond.Type == corev1.PodResizePending {
					s.say("%s %s: %s", cond.Type, cond.Reason, cond.Message)
				}
			}
			have := got.ContainerStatuses[0].Resources.Requests["cpu"]
			s.say("has cpu %s, shares %d", have.String(), s.engine.Container("grows", "app").GetLinux().GetResources().GetCpuShares())
		}
	})
}

func TestNodeIsRegistered(t *testing.T) {
	tell(t, "node", func(s *story) {
		s.pass(15 * time.Second)
		node, err := client.Nodes.Get(s.ctx, s.api, "", "n1")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range node.Status.Conditions {
			s.say("%s=%s %s", c.Type, c.Status, c.Reason)
		}
		for _, name := range []corev1.ResourceName{"cpu", "memory", "pods"} {
			q := node.Status.Allocatable[name]
			s.say("allocatable %s=%s", name, q.String())
		}
		s.say("addresses %v", node.Status.Addresses)
		lease, err := client.Leases.Get(s.ctx, s.api, corev1.NamespaceNodeLease, "n1")
		if err != nil {
			t.Fatal(err)
		}
		first := lease.Spec.RenewTime.Time
		writes := 0
		before, _ := client.Nodes.Get(s.ctx, s.api, "", "n1")
		s.pass(2 * time.Minute)
		after, _ := client.Nodes.Get(s.ctx, s.api, "", "n1")
		if before.ResourceVersion != after.ResourceVersion {
			writes++
		}
		lease, _ = client.Leases.Get(s.ctx, s.api, corev1.NamespaceNodeLease, "n1")
		s.say("lease renewed by %s, idle node written %d times", lease.Spec.RenewTime.Sub(first), writes)
		synctest.Wait()
	})
}
