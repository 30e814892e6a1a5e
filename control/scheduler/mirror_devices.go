package scheduler

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// deviceMirror brings what happens to devices into the ledger.
type deviceMirror struct {
	claims  *informer.Informer[*resourcev1.ResourceClaim]
	classes *informer.Informer[*resourcev1.DeviceClass]
	slices  *informer.Informer[*resourcev1.ResourceSlice]
	rules   *informer.Informer[*resourcev1.DeviceTaintRule]
}

func (s *Scheduler) newDeviceMirror(opts informer.Options) *deviceMirror {
	m := &deviceMirror{
		claims:  informer.New(s.cfg.Transport, client.ResourceClaims, opts),
		classes: informer.New(s.cfg.Transport, client.DeviceClasses, opts),
		slices:  informer.New(s.cfg.Transport, client.ResourceSlices, opts),
		rules:   informer.New(s.cfg.Transport, client.DeviceTaintRules, opts),
	}
	m.claims.Subscribe(func(e informer.Event[*resourcev1.ResourceClaim]) { s.mail.post(func() { s.deviceClaimChanged(e) }) })
	m.classes.Subscribe(func(e informer.Event[*resourcev1.DeviceClass]) { s.mail.post(func() { s.deviceClassChanged(e) }) })
	m.slices.Subscribe(func(e informer.Event[*resourcev1.ResourceSlice]) { s.mail.post(func() { s.deviceSliceChanged(e) }) })
	m.rules.Subscribe(func(e informer.Event[*resourcev1.DeviceTaintRule]) { s.mail.post(func() { s.taintRuleChanged(e) }) })
	return m
}

// run starts the mirrors and returns what closes when they are complete.
func (m *deviceMirror) run(ctx context.Context) []<-chan struct{} {
	return []<-chan struct{}{follow(ctx, m.claims), follow(ctx, m.classes), follow(ctx, m.slices), follow(ctx, m.rules)}
}

func (s *Scheduler) deviceClaimChanged(e informer.Event[*resourcev1.ResourceClaim]) {
	before := s.cluster.devices.SetClaim(e.Old, e.New)
	s.changed(Change{Kind: DeviceClaimChanged, Old: some(before), New: some(e.New)})
}

// deviceClassChanged makes the profiles forget what they know when a resource is a
// device now, or is one no more: filters that look at nothing but nodes look at that.
func (s *Scheduler) deviceClassChanged(e informer.Event[*resourcev1.DeviceClass]) {
	if s.cluster.devices.SetClass(e.Old, e.New) {
		for _, r := range s.profiles {
			r.forgetAll(s.cluster)
		}
	}
	s.changed(Change{Kind: DeviceClassChanged, Old: some(e.Old), New: some(e.New)})
}

func (s *Scheduler) deviceSliceChanged(e informer.Event[*resourcev1.ResourceSlice]) {
	before, after := s.cluster.devices.SetSlice(e.Old, e.New)
	s.changed(Change{Kind: DeviceSliceChanged, Old: some(before), New: some(after)})
}

func (s *Scheduler) taintRuleChanged(e informer.Event[*resourcev1.DeviceTaintRule]) {
	if s.cluster.devices.SetRule(e.Old, e.New) {
		s.changed(Change{Kind: DeviceSliceChanged})
	}
}
