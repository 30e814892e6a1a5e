package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/device"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/plugin"
)

// places gives pods the parts of the machine that are theirs alone.
type places struct {
	devices *device.Devices
	// mu: one pod is placed at a time.
	mu     sync.Mutex
	placer numa.Placer
}

// newPlaces reads who has what.
func (a *Agent) newPlaces() error {
	dir := filepath.Join(a.cfg.KubeletRoot, "device-plugins")
	devices, err := device.New(device.Config{Dir: dir, Changed: a.devicesChanged, Log: a.cfg.Log})
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.places = &places{devices: devices, placer: numa.Placer{Policy: numa.Policy{Name: numa.None}, Providers: []numa.Provider{devices}}}
	return nil
}

// keep takes back what pods have that nobody knows any more.
func (p *places) keep(known map[string]bool) { p.devices.Keep(known) }

// runPlugins listens to those who offer devices.
func (a *Agent) runPlugins(ctx context.Context) {
	a.spawn(func() { a.run(ctx, "device plugins", a.places.devices.Run) })
	a.spawn(func() {
		a.run(ctx, "plugin registration", func(ctx context.Context) error {
			return plugin.Run(ctx, plugin.Config{
				Dir: filepath.Join(a.cfg.KubeletRoot, "plugins_registry"), Log: a.cfg.Log,
				Handlers: map[string]plugin.Handler{"DevicePlugin": a.places.devices.Handler(ctx)},
			})
		})
	})
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
func (a *Agent) grant(ctx context.Context, pod *corev1.Pod, container string, cfg *rt.ContainerConfig) error {
	return a.places.devices.Grant(ctx, string(pod.UID), container, cfg)
}

// allocated tells of the health of a container's devices, for its status.
func (a *Agent) allocated(pod *corev1.Pod, container string) []corev1.ResourceStatus {
	var list []corev1.ResourceStatus
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
