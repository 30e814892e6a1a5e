// Package device gives containers the devices that device plugins offer
// (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1): plugins register at a socket,
// list their devices and are asked when a pod is given some. Who has which
// devices, and what the plugin said how to get them into a container, outlives
// the agent and its plugins: neither's restart touches a pod that has its place.
package device

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/checkpoint"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Socket is the registration socket's name in Config.Dir.
const Socket = "kubelet.sock"

// StateFile holds who has what, beside the sockets, under upstream's name.
const StateFile = "kubelet_internal_checkpoint"

// forgetAfter is how long a resource is known whose plugin has gone: upstream's.
const forgetAfter = 5 * time.Minute

// Config is what New needs.
type Config struct {
	// Dir is where plugins' sockets are, /var/lib/kubelet/device-plugins.
	Dir string
	// Changed is called, from any goroutine, when there are more or fewer devices,
	// or their health has changed. It must not block.
	Changed func()
	// Counts may be nil.
	Counts *tally.Tally
	Log    *slog.Logger
}

// Devices knows all devices of the node and who has them. Its methods may be
// called from any goroutine.
type Devices struct {
	cfg Config

	mu        sync.Mutex
	resources map[string]*kind
	given     map[string]pod
	// rebooted: the machine started anew since devices were given, or the pod is in doubt,
	// so that what plugins said of them no longer holds until they say it again.
	rebooted map[string]bool
}

// kind is one resource: its plugin, nil while there is none, and its devices.
type kind struct {
	plugin *plugin
	// older are those whose place plugin has taken and that are still there, the
	// newest last: in a rolling update that is undone one of them serves again.
	older   []*plugin
	devices map[string]*pluginapi.Device
	// gone is when the plugin went.
	gone time.Time
}

// pod is what a pod's containers have, by container and resource.
type pod map[string]map[string]Share

// Share is what a container has of one resource.
type Share struct {
	IDs      []string
	Response *pluginapi.ContainerAllocateResponse
}

// state is what is kept.
type state struct {
	Boot string
	Pods map[string]pod
	// Resources are those that had devices.
	Resources []string
}

// New reads who has what. A file that can't be trusted is logged and set aside:
// then pods that run keep what they have, and nobody knows of it.
func New(cfg Config) (*Devices, error) {
	d := &Devices{cfg: cfg, resources: map[string]*kind{}, given: map[string]pod{}, rebooted: map[string]bool{}}
	var s state
	found, err := checkpoint.Load(d.path(), &s)
	if err != nil {
		cfg.Log.Error("who has which devices is not known any more", "err", err)
	}
	if !found {
		return d, nil
	}
	if s.Pods != nil {
		d.given = s.Pods
	}
	for _, name := range s.Resources {
		// Known, so that the node says it has none rather than what it had.
		d.resources[name] = &kind{devices: map[string]*pluginapi.Device{}, gone: time.Now()}
	}
	if s.Boot != boot() {
		for uid := range d.given {
			d.rebooted[uid] = true
		}
	}
	return d, nil
}

func (d *Devices) path() string { return filepath.Join(d.cfg.Dir, StateFile) }

// boot tells one start of the machine from another.
func boot() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// save writes who has what; the lock is held.
func (d *Devices) save() error {
	s := state{Boot: boot(), Pods: d.given, Resources: slices.Sorted(maps.Keys(d.resources))}
	return checkpoint.Save(d.path(), s)
}

// Capacity is how many devices there are, and how many of them are healthy.
func (d *Devices) Capacity() (capacity, allocatable corev1.ResourceList) {
	d.mu.Lock()
	defer d.mu.Unlock()
	capacity, allocatable = corev1.ResourceList{}, corev1.ResourceList{}
	for name, k := range d.resources {
		healthy := 0
		for _, dev := range k.devices {
			if k.usable(dev) {
				healthy++
			}
		}
		capacity[corev1.ResourceName(name)] = *resource.NewQuantity(int64(len(k.devices)), resource.DecimalSI)
		allocatable[corev1.ResourceName(name)] = *resource.NewQuantity(int64(healthy), resource.DecimalSI)
	}
	return capacity, allocatable
}

func (k *kind) usable(dev *pluginapi.Device) bool {
	return k.plugin != nil && dev.GetHealth() == pluginapi.Healthy
}

// Knows reports whether a plugin has offered the resource.
func (d *Devices) Knows(name corev1.ResourceName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resources[string(name)] != nil
}

// Health is the health of the devices that a container has, by resource and ID:
// Healthy, Unhealthy, or Unknown while there is no plugin.
func (d *Devices) Health(uid, container string) map[string]map[string]corev1.ResourceHealthStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]map[string]corev1.ResourceHealthStatus{}
	for name, share := range d.given[uid][container] {
		out[name] = map[string]corev1.ResourceHealthStatus{}
		for _, id := range share.IDs {
			out[name][id] = d.health(name, id)
		}
	}
	return out
}

func (d *Devices) health(name, id string) corev1.ResourceHealthStatus {
	k := d.resources[name]
	if k == nil || k.plugin == nil || k.devices[id] == nil {
		return corev1.ResourceHealthStatusUnknown
	}
	if k.devices[id].GetHealth() == pluginapi.Healthy {
		return corev1.ResourceHealthStatusHealthy
	}
	return corev1.ResourceHealthStatusUnhealthy
}

// Given is what a container has, by resource.
func (d *Devices) Given(uid, container string) map[string]Share {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.given[uid][container])
}

// All are the IDs of all healthy devices, by resource, with their NUMA nodes.
func (d *Devices) All() map[string]map[string][]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]map[string][]int64{}
	for name, k := range d.resources {
		out[name] = map[string][]int64{}
		for id, dev := range k.devices {
			if k.usable(dev) {
				out[name][id] = nodesOf(dev)
			}
		}
	}
	return out
}

func nodesOf(dev *pluginapi.Device) []int64 {
	var list []int64
	for _, n := range dev.GetTopology().GetNodes() {
		list = append(list, n.GetID())
	}
	return list
}

// Release implements numa.Provider.
func (d *Devices) Release(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.rebooted, uid)
	if d.given[uid] == nil {
		return
	}
	delete(d.given, uid)
	if err := d.save(); err != nil {
		d.cfg.Log.Error("can't write who has which devices", "err", err)
	}
}

// Keep releases all pods but those of the given UIDs.
func (d *Devices) Keep(uids map[string]bool) {
	d.mu.Lock()
	var gone []string
	for uid := range d.given {
		if !uids[uid] {
			gone = append(gone, uid)
		}
	}
	d.mu.Unlock()
	for _, uid := range gone {
		d.Release(uid)
	}
}

// update takes a plugin's list in.
func (d *Devices) update(p *plugin, list []*pluginapi.Device) error {
	d.mu.Lock()
	k := d.resources[p.resource]
	if k == nil || k.plugin != p && !slices.Contains(k.older, p) {
		d.mu.Unlock()
		return fmt.Errorf("plugin %q of %q was replaced", p.endpoint, p.resource)
	}
	p.devices = map[string]*pluginapi.Device{}
	for _, dev := range list {
		if len(p.devices) < maxDevices {
			p.devices[dev.GetID()] = dev
		}
	}
	if k.plugin != p {
		d.mu.Unlock()
		return nil // until it serves again
	}
	k.devices = p.devices
	err := d.save()
	d.mu.Unlock()
	d.cfg.Changed()
	return err
}

// maxDevices bounds what one plugin may offer.
const maxDevices = 1 << 16

// lost notes that a plugin has gone: its devices stay known for a while, and
// none of them is healthy, unless one that came before it is still there.
func (d *Devices) lost(p *plugin) {
	d.mu.Lock()
	k := d.resources[p.resource]
	mine := k != nil && k.plugin == p
	switch {
	case mine && len(k.older) > 0:
		last := len(k.older) - 1
		k.plugin = k.older[last]
		k.older = slices.Delete(k.older, last, last+1)
		if k.plugin.devices != nil {
			k.devices = k.plugin.devices
		}
	case mine:
		k.plugin, k.gone = nil, time.Now()
	case k != nil:
		k.older = slices.DeleteFunc(k.older, func(o *plugin) bool { return o == p })
	}
	d.mu.Unlock()
	if mine {
		d.cfg.Log.Warn("a device plugin has gone", "resource", p.resource, "endpoint", p.endpoint)
		d.cfg.Changed()
	}
}

// forget drops resources whose plugins have been gone for long, now and then,
// until ctx ends.
func (d *Devices) forget(ctx context.Context) {
	timer := time.NewTicker(time.Minute)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		d.mu.Lock()
		news := false
		for name, k := range d.resources {
			if k.plugin == nil && time.Since(k.gone) > forgetAfter {
				delete(d.resources, name)
				news = true
			}
		}
		d.mu.Unlock()
		if news {
			d.cfg.Changed()
		}
	}
}
