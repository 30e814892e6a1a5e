package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/cpuset"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/claim"
	"github.com/sampan-dev/sampan/node/agent/cpu"
	"github.com/sampan-dev/sampan/node/agent/device"
	"github.com/sampan-dev/sampan/node/agent/memory"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/plugin"
	"github.com/sampan-dev/sampan/node/agent/podresources"
	"github.com/sampan-dev/sampan/node/agent/roster"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// places gives pods the parts of the machine that are theirs alone.
type places struct {
	devices *device.Devices
	// cpus and memory are nil unless the node's policies are static.
	cpus   *cpu.CPUs
	memory *memory.Memory
	claims *claim.Claims
	// sockets are those of plugins that register by one.
	sockets plugin.Sockets
	// shifted rings when the CPUs for everybody have changed.
	shifted chan struct{}
	// mu: one pod is placed at a time.
	mu     sync.Mutex
	placer numa.Placer
}

// Names of the files that hold who has what; upstream's.
const (
	cpuState    = "cpu_manager_state"
	memoryState = "memory_manager_state"
	claimState  = "dra_manager_state"
)

// newPlaces reads who has what.
func (a *Agent) newPlaces() error {
	k, p := a.cfg.Kubelet, &places{shifted: make(chan struct{}, 1)}
	dir := filepath.Join(a.cfg.KubeletRoot, "device-plugins")
	var err error
	if p.devices, err = device.New(device.Config{Dir: dir, Changed: a.devicesChanged, Counts: a.tally, Log: a.cfg.Log}); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	p.claims = claim.New(claim.Config{
		Transport: a.cfg.Transport, NodeName: a.cfg.NodeName, Path: filepath.Join(a.cfg.KubeletRoot, claimState), Changed: a.wakeAll, Counts: a.tally, Log: a.cfg.Log,
	})
	p.placer = numa.Placer{Counts: a.tally, Policy: numa.Policy{Name: k.TopologyManagerPolicy}, PodScope: k.TopologyManagerScope == "pod"}
	a.places = p
	if k.CPUManagerPolicy == "static" || k.MemoryManagerPolicy == "Static" || k.TopologyManagerPolicy != numa.None {
		if err := a.readMachine(); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	p.placer.Providers = append(p.placer.Providers, p.devices)
	return nil
}

// readMachine makes the static managers that the configuration asks for.
func (a *Agent) readMachine() error {
	k, p := a.cfg.Kubelet, a.places
	machine, err := numa.Read(a.cfg.Sys)
	if err != nil {
		return err
	}
	if p.placer.Policy, err = topology(k, machine); err != nil {
		return err
	}
	if k.CPUManagerPolicy == "static" {
		if err := a.cfg.allowed(k.CPUManagerPolicyOptions); err != nil {
			return err
		}
		cfg := cpu.Config{Machine: machine, Path: filepath.Join(a.cfg.KubeletRoot, cpuState), Changed: p.shift, Counts: a.tally, Log: a.cfg.Log}
		if cfg.Options, err = cpu.ParseOptions(k.CPUManagerPolicyOptions); err != nil {
			return err
		}
		if cfg.Reserved, err = cpuset.Parse(k.ReservedSystemCPUs); err != nil {
			return err
		}
		cfg.Count = int((a.cfg.Reserved.Cpu().MilliValue() + 999) / 1000)
		if p.cpus, err = cpu.New(cfg); err != nil {
			return err
		}
		p.placer.Providers = append(p.placer.Providers, p.cpus)
	}
	if k.MemoryManagerPolicy != "Static" {
		return nil
	}
	reserved, err := memory.Reservations(k, a.withheld())
	if err != nil {
		return err
	}
	p.memory = memory.New(memory.Config{Machine: machine, Reserved: reserved, Path: filepath.Join(a.cfg.KubeletRoot, memoryState), Counts: a.tally, Log: a.cfg.Log})
	p.placer.Providers = append(p.placer.Providers, p.memory)
	return nil
}

// maxNodes is how many NUMA nodes a machine may have unless the configuration
// allows more: hints grow with the power of it.
const maxNodes = 8

// topology is the policy that the configuration asks for.
func topology(k *settings.Kubelet, m numa.Machine) (numa.Policy, error) {
	policy := numa.Policy{Name: k.TopologyManagerPolicy, All: m.IDs(), Distance: m.Distance}
	most := maxNodes
	for name, text := range k.TopologyManagerPolicyOptions {
		var err error
		switch name {
		case "prefer-closest-numa-nodes":
			policy.Closest, err = strconv.ParseBool(text)
		case "max-allowable-numa-nodes":
			most, err = strconv.Atoi(text)
			if err == nil && most < maxNodes {
				err = fmt.Errorf("the minimum value of %q should not be less than %d", name, maxNodes)
			}
		default:
			err = errors.New("unknown Topology Manager Policy option")
		}
		if err != nil {
			return policy, fmt.Errorf("topologyManagerPolicyOptions %q: %w", name, err)
		}
	}
	if policy.Name != numa.None && len(policy.All) > most {
		return policy, fmt.Errorf("unsupported on machines with more than %d NUMA Nodes", most)
	}
	return policy, nil
}

// withheld is the memory that pods don't get: what is reserved, and what eviction
// keeps free.
func (a *Agent) withheld() corev1.ResourceList {
	sum := *resource.NewQuantity(a.cfg.Reserved.Memory().Value(), resource.BinarySI)
	sum.Add(a.cfg.kept(a.registry.Capacity())[corev1.ResourceMemory])
	return corev1.ResourceList{corev1.ResourceMemory: sum}
}

// shift says that the CPUs for everybody have changed.
func (p *places) shift() {
	select {
	case p.shifted <- struct{}{}:
	default:
	}
}

// static is the manager by which Guaranteed pods have parts of their own, "" for
// none.
func (p *places) static() string {
	switch {
	case p.cpus != nil:
		return "CPU"
	case p.memory != nil:
		return "Memory"
	}
	return ""
}

// keep takes back what pods have that nobody knows any more.
func (p *places) keep(known map[string]bool) {
	p.devices.Keep(known)
	if p.cpus != nil {
		p.cpus.Keep(known)
	}
	if p.memory != nil {
		p.memory.Keep(known)
	}
}

// confine says which CPUs and NUMA nodes a container may use.
func (p *places) confine(uid, container string, r *rt.LinuxContainerResources) {
	if p.cpus != nil {
		own, is := p.cpus.Of(uid, container)
		if !is {
			own = p.cpus.Shared()
		}
		r.CpusetCpus = own.String()
		if is {
			r.CpuQuota = -1 // they are all its own
		}
	}
	if p.memory != nil {
		r.CpusetMems = cpuset.New(p.memory.Nodes(uid, container)...).String()
	}
}

// runShared keeps all containers without CPUs of their own to those that are
// left, as that changes, until ctx ends.
func (a *Agent) runShared(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.places.shifted:
		}
		if err := a.confineAll(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("can't keep all containers to the CPUs that are left; trying again", "err", err)
			pause(ctx, lookEvery)
			a.places.shift()
		}
	}
}

func (a *Agent) confineAll(ctx context.Context) error {
	list, err := a.cfg.Engine.ListContainers(ctx, &rt.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	shared := a.places.cpus.Shared().String()
	var failed []error
	for _, c := range list.GetContainers() {
		uid, name := c.GetLabels()[actual.LabelPodUID], c.GetLabels()[actual.LabelContainerName]
		if _, own := a.places.cpus.Of(uid, name); own || uid == "" || c.GetState() == rt.ContainerState_CONTAINER_EXITED {
			continue
		}
		_, err := a.cfg.Engine.UpdateContainerResources(ctx, &rt.UpdateContainerResourcesRequest{
			ContainerId: c.GetId(), Linux: &rt.LinuxContainerResources{CpusetCpus: shared},
		})
		if err != nil && !cri.IsNotFound(err) {
			failed = append(failed, fmt.Errorf("container %q: %w", c.GetId(), err))
		}
	}
	return errors.Join(failed...)
}

// settled looks again whether a container that has just started was made with
// the CPUs that are shared now.
func (p *places) settled(uid, container string, r *rt.LinuxContainerResources) {
	if p.cpus == nil {
		return
	}
	if _, own := p.cpus.Of(uid, container); !own && r.GetCpusetCpus() != p.cpus.Shared().String() {
		p.shift()
	}
}

// runPlugins listens to those who offer devices.
func (a *Agent) runPlugins(ctx context.Context) {
	a.spawn(func() { a.run(ctx, "device plugins", a.places.devices.Run) })
	a.spawn(func() { a.places.claims.Begin(ctx) })
	a.spawn(func() {
		a.run(ctx, "pod resources", func(ctx context.Context) error {
			return podresources.Run(ctx, podresources.Config{
				Path: filepath.Join(a.cfg.KubeletRoot, podresources.Socket), Pods: func() []*corev1.Pod { return a.placed("") },
				Devices: a.places.devices, CPUs: a.places.cpus, Memory: a.places.memory, Claims: a.places.claims, Counts: a.tally,
			})
		})
	})
	if a.cfg.gates.On("PodsAPI") {
		a.spawn(func() {
			a.run(ctx, "pods API", func(ctx context.Context) error {
				return a.roster.Serve(ctx, filepath.Join(a.cfg.KubeletRoot, roster.Socket))
			})
		})
	}
	a.spawn(func() {
		a.run(ctx, "plugin registration", func(ctx context.Context) error {
			return plugin.Run(ctx, plugin.Config{
				Dir: filepath.Join(a.cfg.KubeletRoot, "plugins_registry"), Sockets: &a.places.sockets, Log: a.cfg.Log,
				Handlers: map[string]plugin.Handler{"DevicePlugin": a.places.devices.Handler(ctx), "DRAPlugin": a.places.claims.Handler(ctx)},
			})
		})
	})
}

// abandon takes what is prepared for pods that nobody knows any more back; their
// drivers may not be there yet.
func (a *Agent) abandon(ctx context.Context, known map[string]bool) {
	for _, uid := range a.places.claims.Strangers(known) {
		a.spawn(func() {
			for failures := 1; ; failures++ {
				err := a.places.claims.Release(ctx, uid)
				if err == nil || ctx.Err() != nil {
					return
				}
				a.cfg.Log.Warn("can't take back what was prepared for a pod that is gone; trying again", "uid", uid, "err", err)
				pause(ctx, boxRetry.After(failures))
			}
		})
	}
}

// devicesChanged: the node has more or fewer, and pods may show another health.
func (a *Agent) devicesChanged() {
	a.registry.Kick()
	a.wakeAll()
}

// extra are the devices that the node has.
func (a *Agent) extra() (capacity, allocatable corev1.ResourceList) {
	if a.places == nil {
		return nil, nil // the node is only being looked at
	}
	return a.places.devices.Capacity()
}

// place gives a pod that is new here its parts, or says why it can't have them.
// It may take as long as plugins take; only other pods that need some wait.
func (a *Agent) place(ctx context.Context, pod *corev1.Pod) *admit.Refusal {
	a.places.mu.Lock()
	defer a.places.mu.Unlock()
	err := a.places.placer.Place(ctx, pod)
	var refused *numa.Refused
	if errors.As(err, &refused) {
		return admit.Refuse(refused.Reason, refused.Message)
	}
	return nil
}

// unplace takes back what a pod has, since nothing of it runs any more.
func (a *Agent) unplace(uid string) {
	a.places.mu.Lock()
	defer a.places.mu.Unlock()
	for _, p := range a.places.placer.Providers {
		p.Release(uid)
	}
}

// grant adds what a container was given to its configuration.
func (a *Agent) grant(ctx context.Context, pod *corev1.Pod, c *corev1.Container, cfg *rt.ContainerConfig) error {
	if r := cfg.GetLinux().GetResources(); r != nil {
		a.places.confine(string(pod.UID), c.Name, r)
	}
	if err := a.places.claims.Grant(pod, c, cfg); err != nil {
		return err
	}
	return a.places.devices.Grant(ctx, string(pod.UID), c.Name, cfg)
}

// allocated tells of the health of a container's devices, for its status.
func (a *Agent) allocated(pod *corev1.Pod, container string) []corev1.ResourceStatus {
	var list []corev1.ResourceStatus
	if c := spec.Container(pod, container); c != nil {
		list = a.places.claims.Health(pod, c)
	}
	for name, devices := range a.places.devices.Health(string(pod.UID), container) {
		s := corev1.ResourceStatus{Name: corev1.ResourceName(name)}
		for id, health := range devices {
			s.Resources = append(s.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: health})
		}
		slices.SortFunc(s.Resources, func(x, y corev1.ResourceHealth) int { return cmp.Compare(x.ResourceID, y.ResourceID) })
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y corev1.ResourceStatus) int { return cmp.Compare(x.Name, y.Name) })
	return list
}
