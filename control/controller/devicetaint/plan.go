package devicetaint

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

type (
	claim = resourcev1.ResourceClaim
	slice = resourcev1.ResourceSlice
	rule  = resourcev1.DeviceTaintRule
)

// eviction is when a pod has to go, and because of which rules; of taints that are
// in slices nobody keeps account.
type eviction struct {
	at    time.Time
	rules []*rule
}

// join is the eviction for the reasons of both, at the earlier of their times; nil
// stands for none.
func (e *eviction) join(o *eviction) *eviction {
	if e == nil || o == nil {
		if e == nil {
			return o
		}
		return e
	}
	joined := &eviction{at: e.at, rules: slices.Clone(e.rules)}
	if o.at.Before(joined.at) {
		joined.at = o.at
	}
	for _, r := range o.rules {
		if !joined.due(r.UID) {
			joined.rules = append(joined.rules, r)
		}
	}
	return joined
}

// due says whether a rule is among the reasons.
func (e *eviction) due(uid types.UID) bool {
	return e != nil && slices.ContainsFunc(e.rules, func(r *rule) bool { return r.UID == uid })
}

// world is what the decisions look at.
type world struct {
	// claim gives a claim by name, nil when there is none.
	claim func(namespace, name string) *claim
	// pool gives the slices of a pool of devices.
	pool func(driver, pool string) []*slice
	// rules are those that evict.
	rules []*rule
}

// pod says when a pod has to go; nil for never. Only pods on nodes have to, on
// account of the claims that are reserved for them.
func (w *world) pod(pod *corev1.Pod) (e *eviction) {
	if pod.Spec.NodeName == "" {
		return nil
	}
	for i := range pod.Spec.ResourceClaims {
		name, mine, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil || name == nil {
			continue // not made yet, or not needed
		}
		c := w.claim(pod.Namespace, *name)
		if c == nil || c.Status.Allocation == nil || mine && resourceclaim.IsForPod(pod, c, false) != nil || !resourceclaim.IsReservedForPod(pod, c, false) {
			continue
		}
		e = e.join(w.devices(c))
	}
	return e
}

// devices says when the users of a claim have to go, on account of its devices.
func (w *world) devices(c *claim) (e *eviction) {
	for i := range c.Status.Allocation.Devices.Results {
		got := &c.Status.Allocation.Devices.Results[i]
		if d := device(w.pool(got.Driver, got.Pool), got.Device); d != nil {
			for j := range d.Taints {
				if t := &d.Taints[j]; t.Effect == resourcev1.DeviceTaintEffectNoExecute {
					e = e.join(sentence(got, t, nil))
				}
			}
		}
		for _, r := range w.rules {
			if means(r, got.Driver, got.Pool, got.Device) {
				e = e.join(sentence(got, &r.Spec.Taint, r))
			}
		}
	}
	return e
}

// sentence says when one taint evicts the users of a device; nil when it is
// tolerated for good. Without a toleration it evicts from when it was added.
func sentence(got *resourcev1.DeviceRequestAllocationResult, t *resourcev1.DeviceTaint, r *rule) *eviction {
	taint := *t
	taint.Effect = resourcev1.DeviceTaintEffectNoExecute // also of one whose effect is tried out
	e := &eviction{}
	if t.TimeAdded != nil {
		e.at = t.TimeAdded.Time
	}
	if r != nil {
		e.rules = []*rule{r}
	}
	stay := int64(-1)
	for _, toleration := range got.Tolerations {
		if toleration.Effect != resourcev1.DeviceTaintEffectNoExecute || !resourceclaim.ToleratesTaint(toleration, taint) {
			continue
		}
		if toleration.TolerationSeconds == nil {
			return nil
		}
		if s := max(*toleration.TolerationSeconds, 0); stay < 0 || s < stay {
			stay = s
		}
	}
	e.at = e.at.Add(time.Duration(max(stay, 0)) * time.Second)
	return e
}

// device finds a device among the newest slices of its pool.
func device(pool []*slice, name string) *resourcev1.Device {
	for _, s := range newest(pool) {
		for i := range s.Spec.Devices {
			if s.Spec.Devices[i].Name == name {
				return &s.Spec.Devices[i]
			}
		}
	}
	return nil
}

// newest are the slices of a pool's latest generation.
func newest(pool []*slice) (latest []*slice) {
	for _, s := range pool {
		switch {
		case len(latest) == 0 || s.Spec.Pool.Generation > latest[0].Spec.Pool.Generation:
			latest = []*slice{s}
		case s.Spec.Pool.Generation == latest[0].Spec.Pool.Generation:
			latest = append(latest, s)
		}
	}
	return latest
}

// means says whether a rule is about a device.
func means(r *rule, driver, pool, device string) bool {
	by := r.Spec.DeviceSelector
	return by != nil && (by.Driver == nil || *by.Driver == driver) && (by.Pool == nil || *by.Pool == pool) && (by.Device == nil || *by.Device == device)
}

// evicts says whether a rule evicts anybody.
func evicts(r *rule) bool {
	return r != nil && r.Spec.Taint.Effect == resourcev1.DeviceTaintEffectNoExecute
}

// taints are the taints of a slice's devices that evict.
func taints(s *slice) (all []tainted) {
	if s == nil {
		return nil
	}
	for i := range s.Spec.Devices {
		for _, t := range s.Spec.Devices[i].Taints {
			if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
				all = append(all, tainted{s.Spec.Devices[i].Name, s.Spec.Pool.Generation, t.Key, t.Value, since(t.TimeAdded)})
			}
		}
	}
	return all
}

// tainted is one taint of one device, to be compared.
type tainted struct {
	device     string
	generation int64
	key, value string
	since      int64
}

func since(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}
