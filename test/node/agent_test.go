package node_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// silent is a registry that takes connections and never answers.
func silent(t *testing.T) (address string, taken <-chan struct{}) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan struct{}, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			got <- struct{}{}
		}
	}()
	return l.Addr().String(), got
}

// The end of a pod is the end of its pulls: neither it nor its namespace waits for a
// registry that doesn't answer.
func TestEndDuringPull(t *testing.T) {
	n := newNode(t, nil)
	const grace, ofGrace = 120, 60 * time.Second // nothing waits for the end of it
	address, taken := silent(t)
	for _, name := range []string{"first", "second"} {
		p := n.pod(name)
		p.Spec.Containers[0].Image = address + "/nothing:1"
		seconds := int64(grace)
		p.Spec.TerminationGracePeriodSeconds = &seconds
		n.create(p)
	}
	<-taken
	n.await("second", "pulls", func(*corev1.Pod) bool { return strings.Contains(n.events("second"), "Pulling") })
	begin := time.Now()
	n.delete("first")
	within(t, ofGrace, "a pod that pulls is gone", func() bool { return n.gone("first") })
	// The other goes on with the very same pull.
	if e := n.events("second"); strings.Contains(e, "Failed") {
		t.Errorf("the end of one pod failed the pull of another:\n%s", e)
	}
	n.must(client.Namespaces.Delete(t.Context(), n.admin, "", n.ns, metav1.DeleteOptions{}))
	within(t, ofGrace, "the namespace's pod is gone", func() bool { return n.gone("second") })
	t.Logf("both pods were gone after %s", time.Since(begin))
	until(t, "the namespace is gone", func() bool {
		_, err := client.Namespaces.Get(t.Context(), n.admin, "", n.ns)
		return apierrors.IsNotFound(err)
	})
	t.Logf("the namespace was gone after %s", time.Since(begin))
}

// Each kind of probe, asked of a real container.
func TestProbes(t *testing.T) {
	n := newReachable(t, nil)
	p := n.pod("probed", "serve", "8080")
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	port := intstr.FromInt(8080)
	quick := func(h corev1.ProbeHandler) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: h, PeriodSeconds: 1, TimeoutSeconds: 60, FailureThreshold: 1, SuccessThreshold: 1}
	}
	c := &p.Spec.Containers[0]
	c.StartupProbe = quick(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}})
	c.StartupProbe.FailureThreshold = 100
	c.ReadinessProbe = quick(httpProbe(8080))
	c.LivenessProbe = quick(corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}})
	other := corev1.Container{Name: "other", Image: intruder, Args: []string{"wait"}, ImagePullPolicy: corev1.PullIfNotPresent}
	other.ReadinessProbe = quick(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/intruder", "exists", "/tmp/go"}}})
	p.Spec.Containers = append(p.Spec.Containers, other)
	n.create(p)
	n.await("probed", "has one ready container", func(p *corev1.Pod) bool {
		s := statuses(p)
		return s["c"].Ready && s["other"].State.Running != nil && !s["other"].Ready
	})
	until(t, "the other was asked in vain", func() bool { return strings.Contains(n.events("probed"), "Readiness probe failed") })
	n.exec("probed", "other", "/intruder", "write", "/tmp/go", "x")
	n.ready("probed")
	n.exec("probed", "c", "/intruder", "write", "/tmp/sick", "x")
	n.await("probed", "was restarted and is ready", func(p *corev1.Pod) bool { return statuses(p)["c"].RestartCount == 1 && isReady(p) })
	for _, want := range []string{"Liveness probe failed", "failed liveness probe, will be restarted"} {
		until(t, "an event says "+want, func() bool { return strings.Contains(n.events("probed"), want) })
	}
	if statuses(n.get("probed"))["other"].RestartCount != 0 {
		t.Error("the other container was restarted too")
	}
}

func statuses(p *corev1.Pod) map[string]corev1.ContainerStatus {
	m := map[string]corev1.ContainerStatus{}
	for _, s := range p.Status.ContainerStatuses {
		m[s.Name] = s
	}
	return m
}

// exec runs a command in a container.
func (n *node) exec(pod, container string, cmd ...string) string {
	n.Helper()
	_, id, _ := strings.Cut(statuses(n.get(pod))[container].ContainerID, "://")
	out, err := n.engine.ExecSync(n.Context(), &rt.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: 10})
	n.must(err)
	if out.GetExitCode() != 0 {
		n.Fatalf("%v in %s: %d, %s%s", cmd, pod, out.GetExitCode(), out.GetStdout(), out.GetStderr())
	}
	return strings.TrimSpace(string(out.GetStdout()))
}

// cgroupFile reads a limit as the container sees it, by its name in either version.
func (n *node) cgroupFile(pod, v1, v2 string) string {
	n.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return n.exec(pod, "c", "/intruder", "cat", "/sys/fs/cgroup/"+v2)
	}
	return n.exec(pod, "c", "/intruder", "cat", "/sys/fs/cgroup/"+v1)
}

// A container is given other resources while it runs.
func TestResize(t *testing.T) {
	n := newNode(t, nil)
	p := n.pod("grows")
	p.Spec.Containers[0].Resources = resources("100m", "32Mi")
	n.create(p)
	before := statuses(n.ready("grows"))["c"]
	if got := n.cgroupFile("grows", "memory/memory.limit_in_bytes", "memory.max"); got != "33554432" {
		t.Errorf("memory limit %s before", got)
	}
	patch := []byte(`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"500m","memory":"64Mi"},"limits":{"cpu":"500m","memory":"64Mi"}}}]}}`)
	at := target.Of(client.Pods.GroupVersionResource, n.ns).Object("grows").Sub("resize")
	_, err := client.Pods.Patch(t.Context(), n.admin, at, client.Patch{Type: types.StrategicMergePatchType, Data: patch})
	n.must(err)
	n.await("grows", "has its new resources", func(p *corev1.Pod) bool {
		s := statuses(p)["c"]
		return s.Resources != nil && s.Resources.Limits.Cpu().MilliValue() == 500 && s.Resources.Limits.Memory().Value() == 64<<20
	})
	after := statuses(n.get("grows"))["c"]
	if after.ContainerID != before.ContainerID || after.RestartCount != 0 {
		t.Errorf("the container is another: %+v", after)
	}
	if got := n.cgroupFile("grows", "memory/memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory limit %s after", got)
	}
	if got := n.cgroupFile("grows", "cpu/cpu.cfs_quota_us", "cpu.max"); !strings.HasPrefix(got, "50000") {
		t.Errorf("CPU quota %s after", got)
	}
}

func resources(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// When the machine goes down its pods are ended in order, each with its time.
func TestShutdown(t *testing.T) {
	ending := make(chan struct{})
	n := newNode(t, func(c *agent.Config) {
		c.Ending = ending
		c.Kubelet = &settings.Kubelet{ShutdownGracePeriod: metav1.Duration{Duration: 11 * time.Second}, ShutdownGracePeriodCriticalPods: metav1.Duration{Duration: time.Second}}
	})
	n.create(n.pod("polite"))
	stubborn := n.pod("stubborn", "stubborn")
	grace := int64(60)
	stubborn.Spec.TerminationGracePeriodSeconds = &grace
	n.create(stubborn)
	n.ready("polite")
	n.ready("stubborn")
	until(t, "both know what to do about signals", func() bool {
		return strings.Contains(n.output(n.get("polite"), "c"), "waiting") && strings.Contains(n.output(n.get("stubborn"), "c"), "ignoring")
	})
	close(ending)
	for name, code := range map[string]int32{"polite": 0, "stubborn": 137} {
		phase := corev1.PodFailed
		if code == 0 {
			phase = corev1.PodSucceeded
		}
		p := n.phase(name, phase)
		if p.Status.Reason != "Terminated" || !strings.Contains(p.Status.Message, "imminent node shutdown") {
			t.Errorf("%s: %q, %q", name, p.Status.Reason, p.Status.Message)
		}
		if st := statuses(p)["c"].State.Terminated; st == nil || st.ExitCode != code {
			t.Errorf("%s ended as %+v", name, st)
		}
	}
	until(t, "the node says that it goes down", func() bool {
		node, err := client.Nodes.Get(t.Context(), n.admin, "", n.name)
		return err == nil && slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "node is shutting down")
		})
	})
}

// A pod from a file runs, is shown, and goes with its file.
func TestStaticPod(t *testing.T) {
	dir := filepath.Join(home, "manifests")
	n := newNode(t, func(c *agent.Config) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c.Kubelet = &settings.Kubelet{StaticPodPath: dir}
	})
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: still, namespace: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: c, image: %q, imagePullPolicy: IfNotPresent}\n", n.ns, intruder)
	file := filepath.Join(dir, "still.yaml")
	n.must(os.WriteFile(file, []byte(manifest), 0o600))
	name := "still-" + n.name
	until(t, "the static pod is shown", func() bool { return !n.gone(name) })
	id := statuses(n.ready(name))["c"].ContainerID
	n.close()
	n.open()
	n.start()
	if now := statuses(n.ready(name))["c"]; now.ContainerID != id || now.RestartCount != 0 {
		t.Errorf("the agent's restart touched the static pod: %+v", now)
	}
	n.must(os.Remove(file))
	until(t, "the static pod is gone", func() bool { return n.gone(name) })
	until(t, "none of its containers runs", func() bool {
		list, err := n.engine.ListContainers(t.Context(), &rt.ListContainersRequest{Filter: &rt.ContainerFilter{State: &rt.ContainerStateValue{State: rt.ContainerState_CONTAINER_RUNNING}}})
		n.must(err)
		return len(list.GetContainers()) == 0
	})
}

// Logs are bounded, and what is left of them is whole.
func TestLogRotation(t *testing.T) {
	n := newNode(t, func(c *agent.Config) { c.LogMaxSize, c.LogMaxFiles = 64<<10, 3 })
	n.create(n.pod("talks", "spam", "6000", "100", "then", "wait"))
	pod := n.ready("talks")
	dir := filepath.Join(n.dir, "logs", pod.Namespace+"_"+pod.Name+"_"+string(pod.UID), "c")
	until(t, "the log is rotated", func() bool {
		files, _ := filepath.Glob(filepath.Join(dir, "0.log.*"))
		return len(files) > 0
	})
	until(t, "everything is written", func() bool {
		out := n.output(pod, "c")
		return strings.Contains(out, "\n005999 xxx") && strings.Contains(out, "waiting")
	})
	until(t, "no more than three files are left", func() bool { // the oldest goes after the rotation
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		n.must(err)
		return len(files) <= 3
	})
}

// After a restart with a hundred pods the agent is soon at work, and has touched no
// container.
func TestRestartWithManyPods(t *testing.T) {
	const many = 100
	n := newReachable(t, nil)
	for i := range many {
		n.create(n.pod(fmt.Sprintf("p%d", i)))
	}
	ids := map[string]string{}
	within(t, 2*patience, "all pods run", func() bool {
		pods, _, err := client.Pods.List(t.Context(), n.admin, n.ns, metav1.ListOptions{})
		n.must(err)
		for _, p := range pods {
			if isReady(p) {
				ids[p.Name] = p.Status.ContainerStatuses[0].ContainerID
			}
		}
		return len(ids) == many
	})
	n.close()
	begin, cpu := time.Now(), cpuTime()
	n.open()
	n.start()
	n.create(n.pod("new"))
	n.ready("new")
	took, used := time.Since(begin), cpuTime()-cpu
	t.Logf("at work again after %s, %s of CPU time", took, used)
	if used > 2*time.Second {
		t.Errorf("%s of CPU time to be at work again with %d pods", used, many)
	}
	pods, _, err := client.Pods.List(t.Context(), n.admin, n.ns, metav1.ListOptions{})
	n.must(err)
	for _, p := range pods {
		if s := p.Status.ContainerStatuses; p.Name != "new" && (len(s) != 1 || s[0].ContainerID != ids[p.Name] || s[0].RestartCount != 0 || !s[0].Ready) {
			t.Errorf("pod %s: %+v", p.Name, s)
		}
	}
	list, err := n.engine.ListContainers(t.Context(), &rt.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != many+1 {
		t.Errorf("%d containers, want %d, %v", len(list.GetContainers()), many+1, err)
	}
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
