package device

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// wanted is how many devices of each known resource a container asks for, but for those
// that a driver has for it.
func (d *Devices) wanted(pod *corev1.Pod, c *corev1.Container) map[string]int {
	want := map[string]int{}
	for name, q := range c.Resources.Limits {
		if n := int(q.Value()); n > 0 && d.Knows(name) && !spec.Claimed(pod, c.Name, name) {
			want[string(name)] = n
		}
	}
	return want
}

// free are a resource's usable devices that nobody has; the lock is held.
func (d *Devices) free(name string) map[string]*pluginapi.Device {
	taken := map[string]bool{}
	for _, p := range d.given {
		for _, shares := range p {
			for _, id := range shares[name].IDs {
				taken[id] = true
			}
		}
	}
	free := map[string]*pluginapi.Device{}
	for id, dev := range d.resources[name].devices {
		if !taken[id] && d.resources[name].usable(dev) {
			free[id] = dev
		}
	}
	return free
}

// reusable are devices that the pod's init containers have and no later
// container yet: they are done before it starts. The lock is held.
func (d *Devices) reusable(pod *corev1.Pod, name string) []string {
	var had, again []string
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		ids := d.given[string(pod.UID)][c.Name][name].IDs
		if spec.Sidecar(c) {
			again = append(again, ids...)
		} else {
			had = append(had, ids...)
		}
	}
	for i := range pod.Spec.Containers {
		again = append(again, d.given[string(pod.UID)][pod.Spec.Containers[i].Name][name].IDs...)
	}
	had = slices.DeleteFunc(had, func(id string) bool { return slices.Contains(again, id) })
	slices.Sort(had)
	return slices.Compact(had)
}

// Allocate implements numa.Provider.
func (d *Devices) Allocate(ctx context.Context, pod *corev1.Pod, c *corev1.Container, h numa.Hint) error {
	want := d.wanted(pod, c)
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := d.allocate(ctx, pod, c.Name, name, want[name], h); err != nil {
			return err
		}
	}
	return nil
}

func (d *Devices) allocate(ctx context.Context, pod *corev1.Pod, container, name string, count int, h numa.Hint) error {
	uid := string(pod.UID)
	d.mu.Lock()
	if have := d.given[uid][container][name].IDs; len(have) > 0 {
		d.mu.Unlock()
		if len(have) != count {
			return fmt.Errorf("pod %q container %q changed request for resource %q from %d to %d", uid, container, name, len(have), count)
		}
		return nil
	}
	k := d.resources[name]
	if k == nil || k.plugin == nil {
		d.mu.Unlock()
		return fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", name)
	}
	p, must, free := k.plugin, d.reusable(pod, name), d.free(name)
	d.mu.Unlock()
	ids, err := p.choose(ctx, must, free, count, h)
	if err != nil {
		return err
	}
	begin := time.Now()
	response, err := p.ask(ctx, ids)
	d.cfg.Counts.DevicesGiven(name, time.Since(begin))
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.given[uid] == nil {
		d.given[uid] = map[string]map[string]Share{}
	}
	if d.given[uid][container] == nil {
		d.given[uid][container] = map[string]Share{}
	}
	d.given[uid][container][name] = Share{IDs: ids, Response: response}
	return d.save()
}

// choose picks count devices: those that must be, then those of the hint's nodes,
// then any. Among what would do, the plugin is asked which it likes best.
func (p *plugin) choose(ctx context.Context, must []string, free map[string]*pluginapi.Device, count int, h numa.Hint) ([]string, error) {
	must = must[:min(len(must), count)]
	needed := count - len(must)
	if len(free) < needed {
		return nil, fmt.Errorf("requested number of devices unavailable for %s. Requested: %d, Available: %d", p.resource, needed, len(free))
	}
	var near, somewhere, far []string
	for id, dev := range free {
		switch nodes := nodesOf(dev); {
		case len(nodes) == 0:
			somewhere = append(somewhere, id)
		case h.Any || slices.ContainsFunc(nodes, func(n int64) bool { return h.Nodes.Has(int(n)) }):
			near = append(near, id)
		default:
			far = append(far, id)
		}
	}
	picked := slices.Clone(must)
	for _, group := range [][]string{near, somewhere, far} {
		slices.Sort(group)
		missing := count - len(picked)
		if missing == 0 {
			break
		}
		if len(group) <= missing {
			picked = append(picked, group...)
			continue
		}
		liked, err := p.prefers(ctx, append(slices.Clone(picked), group...), picked, count)
		if err != nil {
			return nil, err
		}
		for _, id := range slices.Concat(liked, group) {
			if len(picked) < count && slices.Contains(group, id) && !slices.Contains(picked, id) {
				picked = append(picked, id)
			}
		}
	}
	slices.Sort(picked)
	return picked, nil
}

// prefers asks the plugin, if it cares.
func (p *plugin) prefers(ctx context.Context, available, must []string, count int) ([]string, error) {
	if !p.options.GetGetPreferredAllocationAvailable() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := p.client.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{
		AvailableDeviceIDs: available, MustIncludeDeviceIDs: must, AllocationSize: int32(count), //nolint:gosec // at most maxDevices
	}}})
	if err != nil {
		return nil, fmt.Errorf("device plugin GetPreferredAllocation rpc failed with err: %w", err)
	}
	if len(r.GetContainerResponses()) == 0 {
		return nil, nil
	}
	return r.GetContainerResponses()[0].GetDeviceIDs(), nil
}

// ask has the plugin give devices to a container.
func (p *plugin) ask(ctx context.Context, ids []string) (*pluginapi.ContainerAllocateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := p.client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, err
	}
	if len(r.GetContainerResponses()) != 1 {
		return nil, fmt.Errorf("no containers return in allocation response %v", r)
	}
	return r.GetContainerResponses()[0], nil
}

// Hints implements numa.Provider.
func (d *Devices) Hints(pod *corev1.Pod, c *corev1.Container) map[string][]numa.Hint {
	out := map[string][]numa.Hint{}
	for name, n := range d.wanted(pod, c) {
		out[name] = d.hints(pod, c.Name, name, n)
	}
	return out
}

// PodHints implements numa.Provider.
func (d *Devices) PodHints(pod *corev1.Pod) map[string][]numa.Hint {
	total := map[string]int{}
	for i := range pod.Spec.Containers {
		for name, n := range d.wanted(pod, &pod.Spec.Containers[i]) {
			total[name] += n
		}
	}
	for i := range pod.Spec.InitContainers {
		for name, n := range d.wanted(pod, &pod.Spec.InitContainers[i]) {
			total[name] = max(total[name], n)
		}
	}
	out := map[string][]numa.Hint{}
	for name, n := range total {
		out[name] = d.hints(pod, "", name, n)
	}
	return out
}

// hints are the sets of nodes that have enough devices; nil when no device says
// where it is.
func (d *Devices) hints(pod *corev1.Pod, container, name string, count int) []numa.Hint {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.resources[name]
	var nodes []int
	for _, dev := range k.devices {
		for _, n := range nodesOf(dev) {
			nodes = append(nodes, int(n))
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	slices.Sort(nodes)
	usable := d.free(name)
	have := d.given[string(pod.UID)][container][name].IDs
	if len(have) > 0 {
		usable = map[string]*pluginapi.Device{}
	}
	for _, id := range slices.Concat(have, d.reusable(pod, name)) {
		usable[id] = k.devices[id]
	}
	fewest, list := len(nodes)+1, []numa.Hint{}
	numa.Subsets(slices.Compact(nodes), func(s numa.Nodes) {
		if within(k.devices, s) >= count {
			fewest = min(fewest, s.Count())
		}
		if within(usable, s) >= count {
			list = append(list, numa.Hint{Nodes: s})
		}
	})
	for i := range list {
		list[i].Preferred = list[i].Nodes.Count() == fewest
	}
	return list
}

// within counts the devices that are at a set of nodes, or anywhere.
func within(devices map[string]*pluginapi.Device, s numa.Nodes) int {
	n := 0
	for _, dev := range devices {
		nodes := nodesOf(dev)
		if len(nodes) == 0 || slices.ContainsFunc(nodes, func(at int64) bool { return s.Has(int(at)) }) {
			n++
		}
	}
	return n
}
