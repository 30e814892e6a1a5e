package devices

import (
	"context"
	"errors"
	"fmt"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
)

var (
	errTimeout = errors.New("device binding timeout")
	errFailed  = errors.New("device binding failed")
)

// ready says whether all conditions hold that an allocated claim's devices need
// before their pod may be bound; an error says that one cannot hold any more.
func ready(c *resourcev1.ResourceClaim) (bool, error) {
	if c.Status.Allocation == nil {
		return false, nil
	}
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		if len(r.BindingConditions) == 0 {
			continue
		}
		s := statusOf(c, r)
		if s == nil {
			return false, nil
		}
		for _, name := range r.BindingFailureConditions {
			if f := meta.FindStatusCondition(s.Conditions, name); f != nil && f.Status == metav1.ConditionTrue {
				return false, fmt.Errorf("%w: claim=%s, reason=%s, message=%q", errFailed, c.Name, f.Reason, f.Message)
			}
		}
		for _, name := range r.BindingConditions {
			if !meta.IsStatusConditionTrue(s.Conditions, name) {
				return false, nil
			}
		}
	}
	return true, nil
}

// statusOf is what the driver says of an allocated device; nil when nothing.
func statusOf(c *resourcev1.ResourceClaim, r *resourcev1.DeviceRequestAllocationResult) *resourcev1.AllocatedDeviceStatus {
	for i := range c.Status.Devices {
		if d := &c.Status.Devices[i]; d.Driver == r.Driver && d.Pool == r.Pool && d.Device == r.Device {
			return d
		}
	}
	return nil
}

// conditional says whether any device of a claim has conditions.
func conditional(c *resourcev1.ResourceClaim) bool {
	if c == nil || c.Status.Allocation == nil {
		return false
	}
	for i := range c.Status.Allocation.Devices.Results {
		if len(c.Status.Allocation.Devices.Results[i].BindingConditions) > 0 {
			return true
		}
	}
	return false
}

// deadline is until when the conditions of a claim must hold.
func (p *Plugin) deadline(c *resourcev1.ResourceClaim) (time.Time, bool) {
	if !conditional(c) || c.Status.Allocation.AllocationTimestamp == nil {
		return time.Time{}, false
	}
	return c.Status.Allocation.AllocationTimestamp.Add(p.bindingTimeout), true
}

// overdue says whether the conditions of a claim have been waited for long enough.
func (p *Plugin) overdue(c *resourcev1.ResourceClaim) bool {
	until, ok := p.deadline(c)
	return ok && until.Before(time.Now())
}

// await waits until the conditions of a claim hold.
func (p *Plugin) await(ctx context.Context, t client.Transport, c *resourcev1.ResourceClaim) (*resourcev1.ResourceClaim, error) {
	cause := fmt.Errorf("%w: claim=%s", errTimeout, c.Name)
	until := time.Now().Add(p.bindingTimeout)
	if own, ok := p.deadline(c); ok {
		until = own
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, cause)
	defer cancel()
	w, err := client.ResourceClaims.Watch(ctx, t, c.Namespace, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", c.Name).String(),
	})
	if err != nil {
		return c, fmt.Errorf("watch claim %q: %w", c.Name, err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return c, fmt.Errorf("claim %q: the watch ended before its devices were ready", c.Name)
			}
			now, is := e.Object.(*resourcev1.ResourceClaim)
			if !is {
				continue
			}
			if e.Type == watch.Deleted || now.UID != c.UID {
				return c, fmt.Errorf("resourceclaim %q not found", c.Name)
			}
			if done, err := ready(now); done || err != nil {
				return now, err
			}
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
	}
}
