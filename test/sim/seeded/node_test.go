package seeded

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// machine is a node: an engine that keeps what runs, and the agent that comes and
// goes.
type machine struct {
	name   string
	engine *agenttest.Engine
}

// process is a container that runs.
type process struct {
	pod, uid string
	stateful bool
}

// running are the containers that the engine runs.
func (m *machine) running() []process {
	r, err := m.engine.ListContainers(context.Background(), &rt.ListContainersRequest{})
	if err != nil {
		return nil
	}
	var out []process
	for _, c := range r.GetContainers() {
		if c.GetState() != rt.ContainerState_CONTAINER_RUNNING {
			continue
		}
		name := c.GetLabels()["io.kubernetes.pod.name"]
		out = append(out, process{pod: name, uid: c.GetLabels()["io.kubernetes.pod.uid"], stateful: strings.HasPrefix(name, "s0-") || strings.HasPrefix(name, "v0-")})
	}
	return out
}

// nodeCPU is what a node has, in thousandths.
const nodeCPU = 800

func (w *world) addNode(name string) {
	m := &machine{name: name, engine: agenttest.New()}
	m.engine.Images["work"] = agenttest.Exit(7*time.Second, 0)
	m.engine.Images["long"] = agenttest.Exit(90*time.Second, 0)
	m.engine.Images["flaky"] = agenttest.Exit(5*time.Second, 1)
	w.nodes = append(w.nodes, m)
	w.startAgent(m)
}

// startAgent starts a node's agent; what its engine runs goes on meanwhile.
func (w *world) startAgent(m *machine) {
	l := w.begins("agent "+m.name, func(ctx context.Context, l *life) error {
		a, err := agent.New(agent.Config{
			NodeName: m.name, NodeIPs: []string{"192.0.2.1"},
			Transport: w.connect(l, "", identity.Identity{Name: "system:node:" + m.name, Groups: []string{"system:nodes", identity.Authenticated}}),
			Engine:    m.engine, Root: filepath.Join(w.dir, m.name, "pods"), CgroupMount: filepath.Join(w.dir, m.name, "cgroup"),
			LogMaxSize: -1, PodCIDR: "10.0.0.0/24", ClusterDNS: []string{"10.96.0.10"},
			Capacity: corev1.ResourceList{
				corev1.ResourceCPU: *resource.NewMilliQuantity(nodeCPU, resource.DecimalSI), corev1.ResourceMemory: resource.MustParse("4Gi"),
			},
			Log: w.log,
		})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
	w.respawn(l, func() { w.startAgent(m) })
}

// removed takes a node out of the cluster, with all that ran on it, and brings it back
// under its name after a while.
func (w *world) removed(m *machine, away time.Duration) {
	w.retire("agent " + m.name)
	m.engine.Forget()
	w.ask("delete node "+m.name, func() error { return client.Nodes.Delete(w.t.Context(), w.admin, "", m.name, metav1.DeleteOptions{}) })
	w.later(away, m.name+" comes back", func() { w.startAgent(m) })
}

// silence cuts a node off from the API server for a while.
func (w *world) silence(m *machine, d time.Duration) {
	w.gate.mu.Lock()
	defer w.gate.mu.Unlock()
	w.gate.silent["agent "+m.name] = time.Now().Add(d)
}

// deafen keeps all news from a component for a while; what it asks is answered.
func (w *world) deafen(who string, d time.Duration) {
	w.gate.mu.Lock()
	defer w.gate.mu.Unlock()
	w.gate.deaf[who] = time.Now().Add(d)
}

// power takes a node's power away, with all that ran on it.
func (w *world) power(m *machine) {
	if l := w.lives["agent "+m.name]; l != nil {
		l.kill()
	}
	m.engine.Forget()
}
