package cpu

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"

	"github.com/sampan-dev/sampan/node/agent/numa"
)

// twoSockets has two sockets, each a node of four cores with two CPUs: 0 and 8
// are a core, 0 to 3 and 8 to 11 are on node 0.
func twoSockets() numa.Machine {
	m := numa.Machine{CPUs: map[int]numa.CPU{}, Nodes: []numa.Node{{ID: 0}, {ID: 1}}}
	for id := range 16 {
		core := id % 8
		m.CPUs[id] = numa.CPU{ID: id, Core: core, Socket: core / 4, Node: core / 4, Cache: core / 2 * 2}
	}
	return m
}

func manage(t *testing.T, path string, o Options) *CPUs {
	t.Helper()
	c, err := New(Config{Machine: twoSockets(), Reserved: cpuset.New(0, 8), Options: o, Path: path, Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func guaranteed(name string, cpus ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	for i, q := range cpus {
		r := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q), corev1.ResourceMemory: resource.MustParse("1Gi")}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Resources: corev1.ResourceRequirements{Requests: r, Limits: r}})
	}
	return p
}

// whole asks for the same as a whole.
func whole(p *corev1.Pod) *corev1.Pod {
	p.Spec.Resources = p.Spec.Containers[0].Resources.DeepCopy()
	return p
}

func place(t *testing.T, c *CPUs, policy string, p *corev1.Pod) error {
	t.Helper()
	return numa.Placer{Policy: numa.Policy{Name: policy, All: []int{0, 1}}, Providers: []numa.Provider{c}}.Place(t.Context(), p)
}

// TestPlaces: who gets which CPUs, one pod after the other.
func TestPlaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	c := manage(t, path, Options{})
	for _, step := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{guaranteed("half", "1500m"), ""},
		{whole(guaranteed("whole", "2")), ""},
		{guaranteed("two", "2"), "1,9"},
		{guaranteed("one", "1"), "2"},
		{guaranteed("another", "1"), "10"},
		{guaranteed("socket", "8"), "4-7,12-15"},
	} {
		if err := place(t, c, numa.None, step.pod); err != nil {
			t.Fatalf("%s: %v", step.pod.Name, err)
		}
		if s, _ := c.Of(step.pod.Name, "a"); s.String() != step.want {
			t.Errorf("%s got %s, want %s", step.pod.Name, s, step.want)
		}
	}
	if s := c.Shared().String(); s != "0,3,8,11" {
		t.Errorf("everybody else has %s", s)
	}
	if err := place(t, c, numa.None, guaranteed("late", "3")); err == nil ||
		err.Error() != "Allocate failed due to not enough cpus available to satisfy request: requested=3, available=2, which is unexpected" {
		t.Errorf("too many: %v", err)
	}
	again := manage(t, path, Options{StrictReserved: true})
	if s, own := again.Of("socket", "a"); !own || s.String() != "4-7,12-15" {
		t.Errorf("after a restart the pod has %s", s)
	}
	if s := again.Shared().String(); s != "3,11" {
		t.Errorf("without the reserved CPUs everybody else has %s", s)
	}
	again.Keep(map[string]bool{"two": true})
	if s := again.Shared().String(); s != "2-7,10-15" {
		t.Errorf("when pods are gone everybody else has %s", s)
	}
}

// TestOptions: cores as a whole, spread over nodes, spread over cores.
func TestOptions(t *testing.T) {
	c := manage(t, filepath.Join(t.TempDir(), "s"), Options{FullCores: true})
	var refused *numa.Refused
	if err := place(t, c, numa.None, guaranteed("odd", "3")); !errors.As(err, &refused) || refused.Reason != "SMTAlignmentError" ||
		refused.Message != "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2" {
		t.Errorf("half a core: %v", err)
	}
	c = manage(t, filepath.Join(t.TempDir(), "s"), Options{DistributeNodes: true})
	if err := place(t, c, numa.None, guaranteed("wide", "12")); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.Of("wide", "a"); c.at(s, numa.Of(0)).Size() != 6 || c.at(s, numa.Of(1)).Size() != 6 {
		t.Errorf("it isn't spread: %s", s)
	}
	c = manage(t, filepath.Join(t.TempDir(), "s"), Options{DistributeCores: true})
	if err := place(t, c, numa.None, guaranteed("cores", "3")); err != nil {
		t.Fatal(err)
	}
	if s, _ := c.Of("cores", "a"); s.String() != "1-3" {
		t.Errorf("three cores: %s", s)
	}
	if _, err := ParseOptions(map[string]string{"faster": "true"}); err == nil {
		t.Error("an unknown option is taken")
	}
}

// TestTopology: what doesn't fit a node is refused where that is the policy.
func TestTopology(t *testing.T) {
	c := manage(t, filepath.Join(t.TempDir(), "s"), Options{})
	if err := place(t, c, numa.Single, guaranteed("first", "6", "6")); err != nil {
		t.Fatal(err)
	}
	a, _ := c.Of("first", "a")
	b, _ := c.Of("first", "b")
	if c.at(a, numa.Of(0)).Size() != 6 || c.at(b, numa.Of(1)).Size() != 6 {
		t.Errorf("the containers have %s and %s", a, b)
	}
	var refused *numa.Refused
	if err := place(t, c, numa.Single, guaranteed("second", "2", "2")); !errors.As(err, &refused) || refused.Reason != "TopologyAffinityError" ||
		refused.Message != "Resources cannot be allocated with Topology locality" {
		t.Errorf("no node has room for both: %v", err)
	}
	if _, own := c.Of("second", "a"); own {
		t.Error("a refused pod has kept CPUs")
	}
	if err := place(t, c, numa.BestEffort, guaranteed("third", "2")); err != nil {
		t.Errorf("best-effort: %v", err)
	}
}

// TestRealMachine: this one can be read.
func TestRealMachine(t *testing.T) {
	m, err := numa.Read("/sys")
	if err != nil {
		t.Fatal(err)
	}
	if len(m.CPUs) == 0 || len(m.Nodes) == 0 || m.Distance(m.Nodes[0].ID, m.Nodes[0].ID) != 10 {
		t.Errorf("it looks like %+v", m)
	}
}
