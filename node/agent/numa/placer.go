package numa

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Provider gives containers parts of the machine. Calls come one at a time.
type Provider interface {
	// Hints are the nodes from which it could serve a container, by resource; nil
	// for no opinion.
	Hints(pod *corev1.Pod, c *corev1.Container) map[string][]Hint
	// PodHints are the same for the pod as a whole.
	PodHints(pod *corev1.Pod) map[string][]Hint
	// Allocate gives the container its part, from the hint's nodes if it can.
	// What a container has already it keeps.
	Allocate(ctx context.Context, pod *corev1.Pod, c *corev1.Container, h Hint) error
	// Release takes back everything that a pod has.
	Release(uid string)
}

// Refused is why a pod may not come; Reason and Error are for its status.
type Refused struct{ Reason, Message string }

// Error implements error.
func (r *Refused) Error() string { return r.Message }

// ErrTopology is the reason when hints can't be joined.
const ErrTopology = "TopologyAffinityError"

// ErrUnexpected is the reason of every failure that has no own.
const ErrUnexpected = "UnexpectedAdmissionError"

// Placer places pods. It belongs to one goroutine, but for Release of providers.
type Placer struct {
	Policy    Policy
	PodScope  bool
	Providers []Provider
	// Counts may be nil.
	Counts *tally.Tally
}

// Place gives a pod's containers, in order, all that providers have for them, or
// nothing. The error is a *Refused.
func (p Placer) Place(ctx context.Context, pod *corev1.Pod) error {
	begin := time.Now()
	err := p.place(ctx, pod)
	p.Counts.Placed(time.Since(begin), err)
	if err == nil {
		return nil
	}
	for _, provider := range p.Providers {
		provider.Release(string(pod.UID))
	}
	var refused *Refused
	if !errors.As(err, &refused) {
		refused = &Refused{ErrUnexpected, fmt.Sprintf("Allocate failed due to %v, which is unexpected", err)}
	}
	return refused
}

func (p Placer) place(ctx context.Context, pod *corev1.Pod) error {
	var whole Hint
	if p.PodScope {
		var err error
		if whole, err = p.merge(tally.ScopePod, func(v Provider) map[string][]Hint { return v.PodHints(pod) }); err != nil {
			return err
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if err := p.container(ctx, pod, &list[i], whole); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p Placer) container(ctx context.Context, pod *corev1.Pod, c *corev1.Container, h Hint) error {
	if !p.PodScope {
		var err error
		if h, err = p.merge(tally.ScopeContainer, func(v Provider) map[string][]Hint { return v.Hints(pod, c) }); err != nil {
			return err
		}
	}
	for _, v := range p.Providers {
		if err := v.Allocate(ctx, pod, c, h); err != nil {
			return err
		}
	}
	return nil
}

func (p Placer) merge(scope string, of func(Provider) map[string][]Hint) (Hint, error) {
	if p.Policy.Name == None {
		return Hint{Any: true, Preferred: true}, nil
	}
	var all []map[string][]Hint
	for _, v := range p.Providers {
		all = append(all, of(v))
	}
	h, ok := p.Policy.Merge(all)
	var err error
	if !ok {
		err = &Refused{ErrTopology, "Resources cannot be allocated with Topology locality"}
	}
	if err != nil || !h.Any && h.Nodes.Count() == 1 {
		p.Counts.Aligned(scope, tally.OneNode, err)
	}
	return h, err
}

// Exclusive reports whether a pod's whole CPUs and memory are its own: it is
// Guaranteed, and by its containers' resources, not by those of the pod as a whole
// (upstream's gate PodLevelResourceManagers is off).
func Exclusive(pod *corev1.Pod) bool {
	return spec.QoS(pod) == corev1.PodQOSGuaranteed && !resource.IsPodLevelResourcesSet(pod)
}
