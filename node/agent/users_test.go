package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/users"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/volume"
)

// handlersOf is an engine that only tells what its handlers can do.
type handlersOf struct {
	cri.Engine
	handlers map[string]bool
}

func (e handlersOf) Status(context.Context, *rt.StatusRequest) (*rt.StatusResponse, error) {
	out := &rt.StatusResponse{}
	for name, can := range e.handlers {
		out.RuntimeHandlers = append(out.RuntimeHandlers, &rt.RuntimeHandler{Name: name, Features: &rt.RuntimeHandlerFeatures{UserNamespaces: can, RecursiveReadOnlyMounts: can}})
	}
	return out, nil
}

// A pod with users of its own gets the same range for its sandbox and all of its
// containers, and only where the handler can do that.
func TestUserNamespaces(t *testing.T) {
	ranges, err := users.Open(users.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{users: ranges, cfg: Config{Engine: handlersOf{handlers: map[string]bool{"": true, "old": false}}}}
	own := false
	p := pod("p", container("app", "app"))
	p.UID = "uid-p"
	if u, err := a.userNamespace(t.Context(), p, ""); err != nil || u.Mode != rt.NamespaceMode_NODE || len(u.Uids) != 0 {
		t.Errorf("a pod of the host's users: %v, %v", u, err)
	}
	p.Spec.HostUsers = &own
	box, err := a.userNamespace(t.Context(), p, "")
	if err != nil || box.Mode != rt.NamespaceMode_POD || box.Uids[0].HostId < users.Unit || box.Uids[0].HostId%users.Unit != 0 {
		t.Fatalf("%v, %v", box, err)
	}
	cfg := &rt.ContainerConfig{Mounts: []*rt.Mount{{ContainerPath: "/data"}},
		Linux: &rt.LinuxContainerConfig{SecurityContext: &rt.LinuxContainerSecurityContext{NamespaceOptions: spec.Namespaces(p)}}}
	sandbox := spec.Sandbox(p, 0, spec.Node{})
	if err := a.inUsers(p, cfg, sandbox); err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]uint32{
		"container": cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Uids[0].HostId,
		"sandbox":   sandbox.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Gids[0].HostId,
		"mount":     cfg.Mounts[0].UidMappings[0].HostId,
	} {
		if got != box.Uids[0].HostId {
			t.Errorf("%s: begins at %d, want %d", what, got, box.Uids[0].HostId)
		}
	}
	for handler, want := range map[string]string{
		"old":     "can't set `spec.hostUsers: false`, RuntimeClass handler \"old\" does not support user namespaces",
		"unknown": "RuntimeClass handler \"unknown\" does not support user namespaces",
	} {
		if _, err := a.userNamespace(t.Context(), p, handler); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", handler, err)
		}
	}
	a.cfg.Engine = handlersOf{}
	if _, err := a.userNamespace(t.Context(), p, ""); err == nil || err.Error() != "can't set `spec.hostUsers: false`, runtime does not support user namespaces" {
		t.Errorf("an old engine: %v", err)
	}
}

// A mount is read-only all the way down where it says so and the handler can; where
// the handler can't, a wish is dropped and a demand fails the container.
func TestMountsReadOnlyThroughout(t *testing.T) {
	demand, wish, shared := corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible, corev1.MountPropagationHostToContainer
	for _, c := range []struct {
		name  string
		able  bool
		mount corev1.VolumeMount
		want  string
	}{
		{"plain", true, corev1.VolumeMount{ReadOnly: true}, "false"},
		{"demand", true, corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: &demand}, "true"},
		{"wish", true, corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: &wish}, "true"},
		{"vain wish", false, corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: &wish}, "false"},
		{"vain demand", false, corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: &demand},
			`failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not supported by the runtime`},
		{"writable", true, corev1.VolumeMount{RecursiveReadOnly: &wish},
			`failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not read-only`},
		{"shared", true, corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: &wish, MountPropagation: &shared},
			`failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not compatible with propagation "HostToContainer"`},
	} {
		p := pod("p", container("app", "app"))
		c.mount.Name, c.mount.MountPath = "v", "/v"
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{c.mount}
		a := &Agent{cfg: Config{Engine: handlersOf{handlers: map[string]bool{"": c.able}}}}
		st := &starter{m: &machine{a: a}, pod: p, c: &p.Spec.Containers[0], set: volume.Set{Paths: map[string]string{"v": "/tmp"}}}
		var err error
		if st.throughout, err = a.throughout(t.Context(), p, st.c); err != nil {
			t.Fatal(err)
		}
		m, err := st.mount(0, nil)
		got := fmt.Sprint(m.GetRecursiveReadOnly())
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestFailuresOfPodsWithUsers: a container of such a pod that can't be started counts,
// once however often it is tried.
func TestFailuresOfPodsWithUsers(t *testing.T) {
	engine, dir, no := agenttest.New(), t.TempDir(), false
	defer engine.Close()
	a, err := New(Config{
		Kubelet: &settings.Kubelet{}, NodeName: "n1", NodeIPs: []string{"192.0.2.1"}, Transport: clienttest.NewMemory(), Engine: engine,
		Root: dir, CgroupMount: dir, Sys: dir, LogMaxSize: -1, PodCIDR: "10.0.0.0/24", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []*bool{nil, &no} {
		p := pod("own", container("app", "app"))
		p.Spec.HostUsers = own
		m := newMachine(a, p)
		st := &starter{m: m, pod: p, c: &p.Spec.Containers[0], now: &actual.Pod{}}
		for range 2 {
			st.fail(t.Context(), errConfig, errors.New("no such thing"))(m)
		}
	}
	if got := counted(t, a.tally, "kubelet_started_user_namespaced_pods_errors_total"); got != 1 {
		t.Errorf("%v errors of pods with users of their own, want 1", got)
	}
}

// counted is the value of a counter without labels.
func counted(t *testing.T, c prometheus.Collector, name string) float64 {
	t.Helper()
	all := prometheus.NewRegistry()
	all.MustRegister(c)
	families, err := all.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}
