package claim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// use is one thing that a container has claimed: a claim, and of its requests one
// or, when it is "", all.
type use struct{ label, claim, request string }

// uses are what a container has claimed.
func uses(pod *corev1.Pod, container *corev1.Container) ([]use, error) {
	var list []use
	for _, ref := range container.Resources.Claims {
		i := slices.IndexFunc(pod.Spec.ResourceClaims, func(p corev1.PodResourceClaim) bool { return p.Name == ref.Name })
		if i < 0 {
			continue
		}
		n, err := resolve(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if n.name == "" {
			continue
		}
		label := "claim:" + ref.Name
		if ref.Request != "" {
			label += "/" + ref.Request
		}
		list = append(list, use{label, n.name, ref.Request})
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		for _, m := range s.RequestMappings {
			if m.ContainerName == container.Name {
				list = append(list, use{m.ResourceName, s.ResourceClaimName, m.RequestName})
			}
		}
	}
	return list, nil
}

// of are the devices that u is about, with their drivers' names.
func (c *Claims) of(namespace string, u use, fn func(driver string, d Device)) bool {
	info := c.claims[key(namespace, u.claim)]
	if info == nil || !info.Prepared {
		return false
	}
	var drivers []string
	for driver := range info.Devices {
		drivers = append(drivers, driver)
	}
	slices.Sort(drivers)
	for _, driver := range drivers {
		for _, d := range info.Devices[driver] {
			if u.request == "" || len(d.Requests) == 0 || slices.Contains(d.Requests, base(u.request)) {
				fn(driver, d)
			}
		}
	}
	return true
}

// base is a request without the part that says which of its alternatives it is.
func base(request string) string {
	before, _, _ := strings.Cut(request, "/")
	return before
}

// Grant puts the devices that drivers prepared for a container into its
// configuration.
func (c *Claims) Grant(pod *corev1.Pod, container *corev1.Container, cfg *rt.ContainerConfig) error {
	list, err := uses(pod, container)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range list {
		ok := c.of(pod.Namespace, u, func(_ string, d Device) {
			for _, id := range d.CDI {
				if !slices.ContainsFunc(cfg.CDIDevices, func(have *rt.CDIDevice) bool { return have.GetName() == id }) {
					cfg.CDIDevices = append(cfg.CDIDevices, &rt.CDIDevice{Name: id})
				}
			}
		})
		if !ok {
			return fmt.Errorf("unable to get information for ResourceClaim %s", u.claim)
		}
	}
	return nil
}

// Health is the health of the devices that a container has claimed, for its
// status.
func (c *Claims) Health(pod *corev1.Pod, container *corev1.Container) []corev1.ResourceStatus {
	list, err := uses(pod, container)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []corev1.ResourceStatus
	for _, u := range list {
		s := corev1.ResourceStatus{Name: corev1.ResourceName(u.label)}
		c.of(pod.Namespace, u, func(driver string, d Device) {
			id := corev1.ResourceID(driver + "/" + d.Pool + "/" + d.Name)
			if len(d.CDI) > 0 {
				id = corev1.ResourceID(d.CDI[0])
			}
			if !slices.ContainsFunc(s.Resources, func(h corev1.ResourceHealth) bool { return h.ResourceID == id }) {
				health, message := c.healthOf(device{driver, d.Pool, d.Name})
				s.Resources = append(s.Resources, corev1.ResourceHealth{ResourceID: id, Health: health, Message: message})
			}
		})
		if len(s.Resources) > 0 {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b corev1.ResourceStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// device names a device on the node.
type device struct{ driver, pool, name string }

// reported is what a driver said of a device, and until when that holds.
type reported struct {
	health  corev1.ResourceHealthStatus
	message *string
	until   time.Time
}

// healthOf is what is known of a device; the lock is held.
func (c *Claims) healthOf(d device) (corev1.ResourceHealthStatus, *string) {
	r, ok := c.health[d]
	if !ok || time.Now().After(r.until) {
		return corev1.ResourceHealthStatusUnknown, nil
	}
	return r.health, r.message
}

// Given is one claim with the devices that a container has of it.
type Given struct {
	Claim   string
	Devices []GivenDevice
}

// GivenDevice is a prepared device with its driver.
type GivenDevice struct {
	Driver string
	Device
}

// Given are the claims of a container that are prepared, once each.
func (c *Claims) Given(pod *corev1.Pod, container *corev1.Container) []Given {
	list, err := uses(pod, container)
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Given
	for _, u := range list {
		i := slices.IndexFunc(out, func(g Given) bool { return g.Claim == u.claim })
		found := []GivenDevice{}
		prepared := c.of(pod.Namespace, u, func(driver string, d Device) { found = append(found, GivenDevice{driver, d}) })
		if !prepared {
			continue
		}
		if i < 0 {
			out = append(out, Given{Claim: u.claim})
			i = len(out) - 1
		}
		out[i].Devices = append(out[i].Devices, found...)
	}
	return out
}
