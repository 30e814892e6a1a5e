// Package cpu gives containers of Guaranteed pods that ask for whole CPUs these
// CPUs for themselves, and all others the rest: upstream's static CPU manager
// policy. Assignments outlive the agent.
package cpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/cpuset"

	"github.com/sampan-dev/sampan/node/agent/checkpoint"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Options are upstream's CPU manager policy options.
type Options struct {
	FullCores        bool
	DistributeNodes  bool
	AlignBySocket    bool
	DistributeCores  bool
	StrictReserved   bool
	PreferSharedLast bool
}

// ParseOptions reads them; an unknown one is an error that names it.
func ParseOptions(given map[string]string) (Options, error) {
	var o Options
	fields := map[string]*bool{
		"full-pcpus-only": &o.FullCores, "distribute-cpus-across-numa": &o.DistributeNodes, "align-by-socket": &o.AlignBySocket,
		"distribute-cpus-across-cores": &o.DistributeCores, "strict-cpu-reservation": &o.StrictReserved,
		"prefer-align-cpus-by-uncorecache": &o.PreferSharedLast,
	}
	for name, text := range given {
		field := fields[name]
		if field == nil {
			return o, fmt.Errorf("unsupported cpumanager option: %q (%s)", name, text)
		}
		value, err := strconv.ParseBool(text)
		if err != nil {
			return o, fmt.Errorf("bad value for option %q: %w", name, err)
		}
		*field = value
	}
	switch {
	case o.FullCores && o.DistributeCores:
		return o, errors.New("static policy options full-pcpus-only and distribute-cpus-across-cores can not be used at the same time")
	case o.PreferSharedLast && (o.DistributeCores || o.DistributeNodes):
		return o, errors.New("static policy option prefer-align-cpus-by-uncorecache can not be used with those that distribute CPUs")
	}
	return o, nil
}

// Config is what New needs.
type Config struct {
	Machine numa.Machine
	// Reserved are CPUs that no container gets for itself; if it is empty the
	// first Count CPUs are.
	Reserved cpuset.CPUSet
	Count    int
	Options  Options
	// Path is where assignments are kept.
	Path string
	// Changed is called when the CPUs for everybody have changed. It must not
	// block.
	Changed func()
	// Counts may be nil.
	Counts *tally.Tally
	Log    *slog.Logger
}

// CPUs knows who has which CPUs. Its methods may be called from any goroutine.
type CPUs struct {
	cfg Config

	mu       sync.Mutex
	assigned map[string]map[string]cpuset.CPUSet
}

// New reads the assignments. It fails when they don't fit the machine, since the
// containers that run have those CPUs.
func New(cfg Config) (*CPUs, error) {
	c := &CPUs{cfg: cfg, assigned: map[string]map[string]cpuset.CPUSet{}}
	if cfg.Reserved.IsEmpty() {
		if cfg.Count <= 0 {
			return nil, errors.New("the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero")
		}
		c.cfg.Reserved = cpuset.New(c.take(cfg.Machine.All(), cfg.Count)...)
	}
	if over := c.cfg.Reserved.Difference(cfg.Machine.All()); !over.IsEmpty() {
		return nil, fmt.Errorf("unable to reserve the required amount of CPUs: the machine has no CPUs %s", over)
	}
	var kept map[string]map[string]string
	if _, err := checkpoint.Load(cfg.Path, &kept); err != nil {
		cfg.Log.Error("who has which CPUs is not known any more", "err", err)
	}
	for uid, containers := range kept {
		c.assigned[uid] = map[string]cpuset.CPUSet{}
		for name, text := range containers {
			s, err := cpuset.Parse(text)
			if err == nil && !s.IsSubsetOf(cfg.Machine.All()) {
				err = fmt.Errorf("the machine has no CPUs %s", s.Difference(cfg.Machine.All()))
			}
			if err != nil {
				return nil, fmt.Errorf("CPUs of container %q of pod %s: %w; remove %s once nothing runs", name, uid, err, cfg.Path)
			}
			c.assigned[uid][name] = s
		}
	}
	return c, nil
}

// Of are a container's own CPUs, and whether it has any.
func (c *CPUs) Of(uid, container string) (cpuset.CPUSet, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, own := c.assigned[uid][container]
	return s, own
}

// Shared are the CPUs of all that have none of their own.
func (c *CPUs) Shared() cpuset.CPUSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shared()
}

// Given is how many CPUs are one container's alone, in all and by NUMA node.
func (c *CPUs) Given() (all int, byNode map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := cpuset.New()
	for _, containers := range c.assigned {
		for _, s := range containers {
			own = own.Union(s)
		}
	}
	byNode = map[string]int{}
	for _, unit := range c.cfg.Machine.CPUs {
		n := strconv.Itoa(unit.Node)
		byNode[n] += 0 // a node of which nobody has any is told of too
		if own.Contains(unit.ID) {
			byNode[n]++
		}
	}
	return own.Size(), byNode
}

// Allocatable are the CPUs that containers may have for themselves.
func (c *CPUs) Allocatable() cpuset.CPUSet { return c.cfg.Machine.All().Difference(c.cfg.Reserved) }

func (c *CPUs) shared() cpuset.CPUSet {
	left := c.cfg.Machine.All()
	if c.cfg.Options.StrictReserved {
		left = left.Difference(c.cfg.Reserved)
	}
	for _, containers := range c.assigned {
		for _, s := range containers {
			left = left.Difference(s)
		}
	}
	return left
}

// free are the CPUs that may be given away.
func (c *CPUs) free() cpuset.CPUSet { return c.shared().Difference(c.cfg.Reserved) }

// wants is how many CPUs a container gets for itself.
func wants(pod *corev1.Pod, ct *corev1.Container) int {
	q := ct.Resources.Requests.Cpu()
	if _, ok := ct.Resources.Requests[corev1.ResourceCPU]; !ok {
		q = ct.Resources.Limits.Cpu()
	}
	if !numa.Exclusive(pod) || q.Value()*1000 != q.MilliValue() {
		return 0
	}
	return int(q.Value())
}

// reusable are CPUs of init containers that are done before ct starts.
func (c *CPUs) reusable(pod *corev1.Pod) cpuset.CPUSet {
	had, again := cpuset.New(), cpuset.New()
	for i := range pod.Spec.InitContainers {
		ct := &pod.Spec.InitContainers[i]
		if spec.Sidecar(ct) {
			again = again.Union(c.assigned[string(pod.UID)][ct.Name])
		} else {
			had = had.Union(c.assigned[string(pod.UID)][ct.Name])
		}
	}
	for i := range pod.Spec.Containers {
		again = again.Union(c.assigned[string(pod.UID)][pod.Spec.Containers[i].Name])
	}
	return had.Difference(again)
}

// perCore is how many CPUs a core has.
func (c *CPUs) perCore() int {
	cores := map[int]bool{}
	for _, cpu := range c.cfg.Machine.CPUs {
		cores[cpu.Core] = true
	}
	return max(1, len(c.cfg.Machine.CPUs)/max(1, len(cores)))
}

// Allocate implements numa.Provider.
func (c *CPUs) Allocate(_ context.Context, pod *corev1.Pod, ct *corev1.Container, h numa.Hint) error {
	n := wants(pod, ct)
	if n == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, has := c.assigned[string(pod.UID)][ct.Name]; has {
		c.cfg.Counts.CPUsAsked(nil)
		return nil
	}
	err := c.allocate(pod, ct, n, h)
	c.cfg.Counts.CPUsAsked(err)
	if c.cfg.Options.FullCores {
		c.cfg.Counts.Aligned(tally.ScopeContainer, tally.WholeCores, err)
	}
	return err
}

// allocate gives a container n CPUs; the lock is held.
func (c *CPUs) allocate(pod *corev1.Pod, ct *corev1.Container, n int, h numa.Hint) error {
	uid := string(pod.UID)
	again := c.reusable(pod)
	free := c.free().Union(again)
	if err := c.whole(n, free); err != nil {
		return err
	}
	if free.Size() < n {
		return fmt.Errorf("not enough cpus available to satisfy request: requested=%d, available=%d", n, free.Size())
	}
	picked := again
	if again.Size() > n {
		picked = cpuset.New(c.take(again, n)...)
	}
	picked = c.near(picked, free, n, h)
	if c.assigned[uid] == nil {
		c.assigned[uid] = map[string]cpuset.CPUSet{}
	}
	c.assigned[uid][ct.Name] = picked
	c.cfg.Changed()
	return c.save()
}

// whole refuses what would leave a core to two containers, if that is asked for.
func (c *CPUs) whole(n int, free cpuset.CPUSet) error {
	if !c.cfg.Options.FullCores {
		return nil
	}
	per := c.perCore()
	if n%per != 0 {
		return &numa.Refused{Reason: "SMTAlignmentError", Message: fmt.Sprintf(
			"SMT Alignment Error: requested %d cpus not multiple cpus per core = %d", n, per)}
	}
	cores := 0
	for _, ids := range c.group(free, func(u numa.CPU) int { return u.Core }) {
		if len(ids) == per {
			cores += per
		}
	}
	if cores < n {
		return &numa.Refused{Reason: "SMTAlignmentError", Message: fmt.Sprintf(
			"SMT Alignment Error: not enough free physical CPUs: available physical CPUs = %d, requested CPUs = %d, CPUs per core = %d", cores, n, per)}
	}
	return nil
}

// near adds CPUs to picked until there are n: of the hint's nodes first.
func (c *CPUs) near(picked, free cpuset.CPUSet, n int, h numa.Hint) cpuset.CPUSet {
	left := free.Difference(picked)
	if !h.Any {
		close := c.at(left, h.Nodes)
		picked = picked.Union(cpuset.New(c.take(close, min(n-picked.Size(), close.Size()))...))
		left = left.Difference(picked)
	}
	return picked.Union(cpuset.New(c.take(left, n-picked.Size())...))
}

// at are the CPUs of a set that are at some nodes.
func (c *CPUs) at(s cpuset.CPUSet, nodes numa.Nodes) cpuset.CPUSet {
	var list []int
	for _, id := range s.List() {
		if nodes.Has(c.cfg.Machine.CPUs[id].Node) {
			list = append(list, id)
		}
	}
	return cpuset.New(list...)
}

// Release implements numa.Provider.
func (c *CPUs) Release(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assigned[uid] == nil {
		return
	}
	delete(c.assigned, uid)
	c.cfg.Changed()
	if err := c.save(); err != nil {
		c.cfg.Log.Error("can't write who has which CPUs", "err", err)
	}
}

// Keep releases all pods but those of the given UIDs.
func (c *CPUs) Keep(uids map[string]bool) {
	c.mu.Lock()
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(c.assigned)), func(uid string) bool { return uids[uid] })
	c.mu.Unlock()
	for _, uid := range gone {
		c.Release(uid)
	}
}

func (c *CPUs) save() error {
	out := map[string]map[string]string{}
	for uid, containers := range c.assigned {
		out[uid] = map[string]string{}
		for name, s := range containers {
			out[uid][name] = s.String()
		}
	}
	return checkpoint.Save(c.cfg.Path, out)
}

// Hints implements numa.Provider.
func (c *CPUs) Hints(pod *corev1.Pod, ct *corev1.Container) map[string][]numa.Hint {
	n := wants(pod, ct)
	if n == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if own, has := c.assigned[string(pod.UID)][ct.Name]; has {
		return c.hints(cpuset.New(), own, n)
	}
	return c.hints(c.free(), c.reusable(pod), n)
}

// PodHints implements numa.Provider.
func (c *CPUs) PodHints(pod *corev1.Pod) map[string][]numa.Hint {
	n, first := 0, 0
	for i := range pod.Spec.Containers {
		n += wants(pod, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		ct := &pod.Spec.InitContainers[i]
		if spec.Sidecar(ct) {
			n += wants(pod, ct)
		} else {
			first = max(first, wants(pod, ct))
		}
	}
	if n = max(n, first); n == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hints(c.free(), c.reusable(pod), n)
}

func (c *CPUs) hints(free, again cpuset.CPUSet, n int) map[string][]numa.Hint {
	all := c.cfg.Machine.All()
	usable := free.Union(again)
	fewest, sockets, list := 1<<30, 1<<30, []numa.Hint{}
	numa.Subsets(c.cfg.Machine.IDs(), func(s numa.Nodes) {
		if c.at(all, s).Size() >= n {
			fewest, sockets = min(fewest, s.Count()), min(sockets, c.sockets(s))
		}
		here := c.at(usable, s)
		if here.Size() >= n && again.IsSubsetOf(here) {
			list = append(list, numa.Hint{Nodes: s})
		}
	})
	for i := range list {
		list[i].Preferred = list[i].Nodes.Count() == fewest
		if c.cfg.Options.AlignBySocket {
			list[i].Preferred = c.sockets(list[i].Nodes) == sockets
		}
	}
	return map[string][]numa.Hint{string(corev1.ResourceCPU): list}
}

func (c *CPUs) sockets(nodes numa.Nodes) int {
	seen := map[int]bool{}
	for _, cpu := range c.cfg.Machine.CPUs {
		if nodes.Has(cpu.Node) {
			seen[cpu.Socket] = true
		}
	}
	return len(seen)
}
