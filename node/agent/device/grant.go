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
// plugins that want to know that it is about to start. After a reboot it fails
// until the plugins are back: what they said before may no longer hold, so they
// are asked again for the same devices.
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
		return share, fmt.Errorf("the machine has been restarted, and the device plugin for %s is not back yet", name)
	}
	response, err := p.ask(ctx, share.IDs)
	if err != nil {
		return share, fmt.Errorf("devices of %s after a restart of the machine: %w", name, err)
	}
	share.Response = response
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.given[uid][container] != nil {
		d.given[uid][container][name] = share
	}
	return share, d.save()
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
