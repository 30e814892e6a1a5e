package agent

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// redefined forgets the past of containers that a newer version of the pod defines
// otherwise: one with another image, or other resources, hasn't crashed yet, and one
// with another image has not failed to be pulled.
func (m *machine) redefined(before, now *corev1.Pod) {
	if before.Generation == now.Generation {
		return
	}
	for _, c := range spec.Containers(now) {
		was := spec.Container(before, c.Name)
		if was == nil {
			continue
		}
		if was.Image != c.Image {
			m.otherImage(c.Name)
		}
		if was.Image != c.Image || !equality.Semantic.DeepEqual(was.Resources, c.Resources) {
			delete(m.crashes, c.Name)
		}
	}
}

// otherImage gives up what was done for the image that a container had.
func (m *machine) otherImage(container string) {
	pull := plan.Step{Kind: plan.PullImage, Container: container}.Key()
	if o := m.ops[pull]; o != nil {
		o.cancel()
	}
	m.forgetImages(container)
	delete(m.pulls, imageUse{container: container})
	delete(m.failures, container)
	delete(m.shown, container)
}

// unlessRedefined does what came of fetching an image if it is still the one wanted.
func unlessRedefined(w wantedImage, then func(*machine)) func(*machine) {
	if then == nil {
		return nil
	}
	return func(m *machine) {
		if c := spec.Container(m.pod, w.container); w.volume != "" || (c != nil && c.Image == w.name) {
			then(m)
		}
	}
}
