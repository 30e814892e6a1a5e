package device

import (
	"context"
	"fmt"
	"maps"
	"slices"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Grant puts the devices that a container has into its configuration, and tells
// plugins that want to know that it is about to start. After a reboot, and for a pod in
// doubt, it fails until the plugins are back: what they said before may no longer hold,
// so they are asked again for the same devices.
func (d *Devices) Grant(ctx context.Context, uid, container string, cfg *rt.ContainerConfig) error {
	shares := d.Given(uid, container)
	names := make([]string, 0, len(shares))
	for name := range shares {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		share, err := d.current(ctx, uid, container, name)
		if err != nil {
			return err
		}
		if err := d.preStart(ctx, name, share.IDs); err != nil {
			return err
		}
		apply(cfg, share.Response)
	}
	return nil
}

// current is a share as it holds now.
func (d *Devices) current(ctx context.Context, uid, container, name string) (Share, error) {
	d.mu.Lock()
	share, stale := d.given[uid][container][name], d.rebooted[uid]
	var p *plugin
	if k := d.resources[name]; k != nil {
		p = k.plugin
	}
	d.mu.Unlock()
	if !stale {
		return share, nil
	}
	if p == nil {
		return share, fmt.Errorf("the containers that had %s are gone, and its device plugin is not back yet", name)
	}
	response, err := p.ask(ctx, share.IDs)
	if err != nil {
		return share, fmt.Errorf("devices of %s again, for new containers: %w", name, err)
	}
	share.Response = response
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.given[uid][container] != nil {
		d.given[uid][container][name] = share
	}
	return share, d.save()
}

// Doubt says that a pod's containers went while no agent was there to see it, as by a
// reboot: what plugins said of its devices no longer holds until they say it again.
func (d *Devices) Doubt(uid string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.given[uid] != nil {
		d.rebooted[uid] = true
	}
}

// Missing is why a pod in doubt can't have its devices again; nil when it can, or is not
// in doubt. The texts are upstream's (devicesToAllocate of its device manager).
func (d *Devices) Missing(uid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.rebooted[uid] {
		return nil
	}
	for _, container := range slices.Sorted(maps.Keys(d.given[uid])) {
		for _, name := range slices.Sorted(maps.Keys(d.given[uid][container])) {
			if err := d.missing(name, d.given[uid][container][name].IDs); err != nil {
				return err
			}
		}
	}
	return nil
}

// missing judges one share; the lock is held.
func (d *Devices) missing(name string, ids []string) error {
	k := d.resources[name]
	if k == nil {
		return fmt.Errorf("cannot allocate unregistered device %s", name)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(k.devices)), k.usable) {
		return fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", name)
	}
	if slices.ContainsFunc(ids, func(id string) bool { return k.devices[id] == nil || !k.usable(k.devices[id]) }) {
		return fmt.Errorf("previously allocated devices are no longer healthy; cannot allocate unhealthy devices %s", name)
	}
	return nil
}

// preStart tells the plugin of a start if it asked for that.
func (d *Devices) preStart(ctx context.Context, name string, ids []string) error {
	d.mu.Lock()
	var p *plugin
	if k := d.resources[name]; k != nil {
		p = k.plugin
	}
	d.mu.Unlock()
	if p == nil || !p.options.GetPreStartRequired() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, preStartTimeout)
	defer cancel()
	if _, err := p.client.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: ids}); err != nil {
		return fmt.Errorf("device plugin PreStartContainer rpc failed with err: %w", err)
	}
	return nil
}

// apply adds a plugin's answer to a configuration. What is there already stays:
// the pod's own environment goes before a plugin's.
func apply(cfg *rt.ContainerConfig, r *pluginapi.ContainerAllocateResponse) {
	for _, key := range slices.Sorted(maps.Keys(r.GetEnvs())) {
		if !slices.ContainsFunc(cfg.Envs, func(e *rt.KeyValue) bool { return e.GetKey() == key }) {
			cfg.Envs = append(cfg.Envs, &rt.KeyValue{Key: key, Value: []byte(r.GetEnvs()[key])})
		}
	}
	for _, m := range r.GetMounts() {
		if !slices.ContainsFunc(cfg.Mounts, func(have *rt.Mount) bool { return have.GetContainerPath() == m.GetContainerPath() }) {
			cfg.Mounts = append(cfg.Mounts, &rt.Mount{ContainerPath: m.GetContainerPath(), HostPath: m.GetHostPath(), Readonly: m.GetReadOnly()})
		}
	}
	for _, dev := range r.GetDevices() {
		if !slices.ContainsFunc(cfg.Devices, func(have *rt.Device) bool { return have.GetContainerPath() == dev.GetContainerPath() }) {
			cfg.Devices = append(cfg.Devices, &rt.Device{ContainerPath: dev.GetContainerPath(), HostPath: dev.GetHostPath(), Permissions: dev.GetPermissions()})
		}
	}
	for key, value := range r.GetAnnotations() {
		if cfg.Annotations == nil {
			cfg.Annotations = map[string]string{}
		}
		if _, taken := cfg.Annotations[key]; !taken {
			cfg.Annotations[key] = value
		}
	}
	for _, c := range r.GetCdiDevices() {
		if !slices.ContainsFunc(cfg.CDIDevices, func(have *rt.CDIDevice) bool { return have.GetName() == c.GetName() }) {
			cfg.CDIDevices = append(cfg.CDIDevices, &rt.CDIDevice{Name: c.GetName()})
		}
	}
}
