// Package memory gives Guaranteed pods memory and huge pages of certain NUMA
// nodes: upstream's static memory manager policy. Each container is bound to the
// nodes that it was given; what it takes there is accounted for, so that no node
// is promised twice. Assignments outlive the agent.
package memory

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/agent/checkpoint"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Config is what New needs.
type Config struct {
	Machine numa.Machine
	// Reserved is withheld, by node.
	Reserved map[int]corev1.ResourceList
	// Path is where assignments are kept.
	Path string
	// Counts may be nil.
	Counts *tally.Tally
	Log    *slog.Logger
}

// Block is what a container was given: so much of one resource, from these nodes
// together.
type Block struct {
	Resource corev1.ResourceName
	Nodes    numa.Nodes
	Size     int64
}

// Memory knows who has memory where. Its methods may be called from any
// goroutine.
type Memory struct {
	cfg Config

	mu       sync.Mutex
	assigned map[string]map[string][]Block
}

// Reservations checks reservedMemory against what is reserved for the whole node,
// as upstream does: they must agree, resource by resource.
func Reservations(k *settings.Kubelet, total corev1.ResourceList) (map[int]corev1.ResourceList, error) {
	byNode, sums := map[int]corev1.ResourceList{}, map[corev1.ResourceName]resource.Quantity{}
	for _, r := range k.ReservedMemory {
		byNode[int(r.NumaNode)] = r.Limits
		for name, q := range r.Limits {
			sum := sums[name]
			sum.Add(q)
			sums[name] = sum
		}
	}
	names := map[corev1.ResourceName]bool{corev1.ResourceMemory: true}
	for name := range sums {
		names[name] = true
	}
	for name := range total {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			names[name] = true
		}
	}
	for name := range names {
		want, have := total[name], sums[name]
		if want.Cmp(have) != 0 {
			return nil, fmt.Errorf("the total amount %q of type %q is not equal to the value %q determined by Node Allocatable feature", have.String(), name, want.String())
		}
	}
	return byNode, nil
}

// New reads the assignments.
func New(cfg Config) *Memory {
	m := &Memory{cfg: cfg, assigned: map[string]map[string][]Block{}}
	if _, err := checkpoint.Load(cfg.Path, &m.assigned); err != nil {
		cfg.Log.Error("who has memory of which NUMA nodes is not known any more", "err", err)
	}
	return m
}

// Nodes are those that a container is bound to, none for all.
func (m *Memory) Nodes(uid, container string) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s numa.Nodes
	for _, b := range m.assigned[uid][container] {
		s |= b.Nodes
	}
	return s.List()
}

// Blocks are what a container was given.
func (m *Memory) Blocks(uid, container string) []Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.assigned[uid][container])
}

// Allocatable is what pods may be given of each NUMA node.
func (m *Memory) Allocatable() []Block {
	var list []Block
	for _, n := range m.cfg.Machine.Nodes {
		names := []corev1.ResourceName{corev1.ResourceMemory}
		for size := range n.Huge {
			q := resource.NewQuantity(size, resource.BinarySI)
			names = append(names, corev1.ResourceName(corev1.ResourceHugePagesPrefix+q.String()))
		}
		slices.Sort(names)
		for _, name := range names {
			list = append(list, Block{Resource: name, Nodes: numa.Nodes(1) << n.ID, Size: m.has(n, name)})
		}
	}
	return list
}

// has is how much of a resource a node has for pods.
func (m *Memory) has(n numa.Node, name corev1.ResourceName) int64 {
	total := n.Memory
	if text, huge := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); huge {
		size, err := resource.ParseQuantity(text)
		if err != nil {
			return 0
		}
		total = n.Huge[size.Value()]
	} else {
		for _, bytes := range n.Huge {
			total -= bytes // pages that are set aside are no memory for others
		}
	}
	reserved := m.cfg.Reserved[n.ID][name]
	return max(0, total-reserved.Value())
}

// free is what is left of a resource in a set of nodes, when containers of one
// pod don't count. A block counts once for its nodes together.
func (m *Memory) free(s numa.Nodes, name corev1.ResourceName, but string) int64 {
	sum := int64(0)
	for _, n := range m.cfg.Machine.Nodes {
		if s.Has(n.ID) {
			sum += m.has(n, name)
		}
	}
	for uid, containers := range m.assigned {
		if uid == but {
			continue
		}
		for _, blocks := range containers {
			for _, b := range blocks {
				if b.Resource == name && b.Nodes&s != 0 {
					sum -= b.Size
				}
			}
		}
	}
	return sum
}

// fits: nodes that serve containers as a group serve no others alone, nor in
// another group.
func (m *Memory) fits(s numa.Nodes) bool {
	for _, containers := range m.assigned {
		for _, blocks := range containers {
			for _, b := range blocks {
				if b.Nodes&s != 0 && b.Nodes != s {
					return false
				}
			}
		}
	}
	return true
}

// wants is what a container gets for itself, by resource.
func wants(pod *corev1.Pod, c *corev1.Container) map[corev1.ResourceName]int64 {
	out := map[corev1.ResourceName]int64{}
	if !numa.Exclusive(pod) {
		return out
	}
	for name, q := range c.Resources.Requests {
		if name == corev1.ResourceMemory || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			out[name] = q.Value()
		}
	}
	return out
}

// Hints implements numa.Provider.
func (m *Memory) Hints(pod *corev1.Pod, c *corev1.Container) map[string][]numa.Hint {
	m.mu.Lock()
	defer m.mu.Unlock()
	if blocks := m.assigned[string(pod.UID)][c.Name]; len(blocks) > 0 {
		return again(blocks)
	}
	return m.hints(wants(pod, c))
}

// again are the hints of a container that has its place.
func again(blocks []Block) map[string][]numa.Hint {
	out := map[string][]numa.Hint{}
	for _, b := range blocks {
		out[string(b.Resource)] = []numa.Hint{{Nodes: b.Nodes, Preferred: true}}
	}
	return out
}

// PodHints implements numa.Provider.
func (m *Memory) PodHints(pod *corev1.Pod) map[string][]numa.Hint {
	sum, first := map[corev1.ResourceName]int64{}, map[corev1.ResourceName]int64{}
	for i := range pod.Spec.Containers {
		for name, n := range wants(pod, &pod.Spec.Containers[i]) {
			sum[name] += n
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		for name, n := range wants(pod, c) {
			if spec.Sidecar(c) {
				sum[name] += n
			} else {
				first[name] = max(first[name], n)
			}
		}
	}
	for name, n := range first {
		sum[name] = max(sum[name], n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hints(sum)
}

// hints are the sets of nodes that have enough of everything that is wanted.
func (m *Memory) hints(want map[corev1.ResourceName]int64) map[string][]numa.Hint {
	if len(want) == 0 {
		return nil
	}
	fewest, list := 1<<30, []numa.Hint{}
	numa.Subsets(m.cfg.Machine.IDs(), func(s numa.Nodes) {
		could := true
		for name, n := range want {
			total := int64(0)
			for _, node := range m.cfg.Machine.Nodes {
				if s.Has(node.ID) {
					total += m.has(node, name)
				}
			}
			could = could && total >= n
		}
		if could {
			fewest = min(fewest, s.Count())
		}
		if m.suits(s, want) {
			list = append(list, numa.Hint{Nodes: s})
		}
	})
	for i := range list {
		list[i].Preferred = list[i].Nodes.Count() == fewest
	}
	out := map[string][]numa.Hint{}
	for name := range want {
		out[string(name)] = list
	}
	return out
}

func (m *Memory) suits(s numa.Nodes, want map[corev1.ResourceName]int64) bool {
	if !m.fits(s) {
		return false
	}
	for name, n := range want {
		if m.free(s, name, "") < n {
			return false
		}
	}
	return true
}

// Allocate implements numa.Provider.
func (m *Memory) Allocate(_ context.Context, pod *corev1.Pod, c *corev1.Container, h numa.Hint) error {
	want := wants(pod, c)
	if len(want) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if len(m.assigned[string(pod.UID)][c.Name]) == 0 {
		err = m.allocate(pod, c, want, h)
	}
	m.cfg.Counts.MemoryAsked(err)
	return err
}

// allocate gives a container what it wants; the lock is held.
func (m *Memory) allocate(pod *corev1.Pod, c *corev1.Container, want map[corev1.ResourceName]int64, h numa.Hint) error {
	uid := string(pod.UID)
	nodes := m.choose(h, want)
	if nodes == 0 {
		return fmt.Errorf("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available")
	}
	if m.assigned[uid] == nil {
		m.assigned[uid] = map[string][]Block{}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		m.assigned[uid][c.Name] = append(m.assigned[uid][c.Name], Block{name, nodes, m.charge(pod, c, name, want[name])})
	}
	return checkpoint.Save(m.cfg.Path, m.assigned)
}

// charge is how much a container adds to what its pod has: what init containers
// that have ended leave is used again.
func (m *Memory) charge(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName, n int64) int64 {
	init := slices.ContainsFunc(pod.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name })
	for i := range pod.Spec.InitContainers {
		old := &pod.Spec.InitContainers[i]
		if spec.Sidecar(old) || old.Name == c.Name {
			continue
		}
		blocks := m.assigned[string(pod.UID)][old.Name]
		for j := range blocks {
			if blocks[j].Resource != name {
				continue
			}
			if init && blocks[j].Size >= n {
				return 0
			}
			blocks[j].Size = max(0, blocks[j].Size-n)
		}
	}
	return n
}

// choose follows the hint, widens it when it is too narrow, and without one takes
// the fewest nodes that do.
func (m *Memory) choose(h numa.Hint, want map[corev1.ResourceName]int64) numa.Nodes {
	best := numa.Nodes(0)
	numa.Subsets(m.cfg.Machine.IDs(), func(s numa.Nodes) {
		if !h.Any && !h.Nodes.Within(s) && !s.Within(h.Nodes) {
			return
		}
		if !h.Any && h.Preferred && s != h.Nodes && m.suits(h.Nodes, want) {
			return
		}
		if m.suits(s, want) && (best == 0 || s.Count() < best.Count() || (s.Count() == best.Count() && s < best)) {
			best = s
		}
	})
	return best
}

// Release implements numa.Provider.
func (m *Memory) Release(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.assigned[uid] == nil {
		return
	}
	delete(m.assigned, uid)
	if err := checkpoint.Save(m.cfg.Path, m.assigned); err != nil {
		m.cfg.Log.Error("can't write who has memory of which NUMA nodes", "err", err)
	}
}

// Keep releases all pods but those of the given UIDs.
func (m *Memory) Keep(uids map[string]bool) {
	m.mu.Lock()
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(m.assigned)), func(uid string) bool { return uids[uid] })
	m.mu.Unlock()
	for _, uid := range gone {
		m.Release(uid)
	}
}
