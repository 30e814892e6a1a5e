package volumes

import (
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/plugin/shape"
)

// Score is the scoring part of upstream's VolumeBinding: by default it prefers nodes
// where the volumes that are chosen are large for what is claimed, or where the driver
// of those to be made says that it has much space (KEP-4049). It rates what the filter
// has found.
type Score struct {
	Binding *Binding
	// Shape is the score by how much of the space would be used.
	Shape shape.Shape
}

// Name implements scheduler.Score.
func (Score) Name() string { return "VolumeBinding" }

// Depends implements scheduler.Score.
func (Score) Depends() scheduler.Dependence { return scheduler.OnItself }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 1 }

// For implements scheduler.Score.
func (s Score) For(*corev1.Pod, scheduler.View) scheduler.Rating {
	if len(s.Binding.found) == 0 {
		return nil
	}
	return filling{s}
}

type filling struct{ Score }

// share is what is claimed of what there is, in bytes.
type share struct{ claimed, there int64 }

// Rate is the mean over the storage classes. Where a volume has been found, those to be
// made do not count.
func (r filling) Rate(n *scheduler.Node) int64 {
	p := r.Binding.found[n.Name]
	shares := map[string]share{}
	for _, m := range p.match {
		class := m.volume.Spec.StorageClassName
		shares[class] = share{shares[class].claimed + size(m.claim).Value(), shares[class].there + capacity(m.volume).Value()}
	}
	for _, made := range p.provision {
		if len(p.match) > 0 || made.space == nil {
			continue
		}
		class := className(made.claim)
		shares[class] = share{shares[class].claimed + size(made.claim).Value(), spaceOf(made)}
	}
	if len(shares) == 0 {
		return 0
	}
	var sum int64
	for _, one := range shares {
		sum += r.Shape.At(one.claimed, one.there)
	}
	return int64(math.Round(float64(sum) / float64(len(shares))))
}

// spaceOf is the space of which a volume takes a part; a driver may tell nothing but
// how large one may be.
func spaceOf(p provision) int64 {
	if p.space.Capacity == nil {
		return 0
	}
	return p.space.Capacity.Value()
}

// Normalise implements scheduler.Rating.
func (filling) Normalise([]*scheduler.Node, []int64) {}
