package hollow

import (
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxTemplates bounds the owners that are remembered; then all are forgotten, and
// those that pods still come of are learned again.
const maxTemplates = 8192

// templates keep once what pods of one owner have in common: all but their names,
// nodes and statuses. Tens of thousands of pods are in one process, which on a real
// node would be a hundred. It may be used from any goroutine.
type templates struct {
	mu    sync.Mutex
	known map[types.UID]template
}

// template is what a pod looked like, its node left out. It is read-only.
type template struct {
	labels map[string]string
	owners []metav1.OwnerReference
	spec   *corev1.PodSpec
}

func newTemplates() *templates { return &templates{known: map[types.UID]template{}} }

// share puts what is known in the place of what is equal. The pod itself is the
// caller's, what it points to is not changed.
func (t *templates) share(pod *corev1.Pod) {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return
	}
	node := pod.Spec.NodeName
	pod.Spec.NodeName = ""
	like := t.of(owner.UID, pod)
	if maps.Equal(pod.Labels, like.labels) {
		pod.Labels = like.labels
	}
	if equality.Semantic.DeepEqual(pod.OwnerReferences, like.owners) {
		pod.OwnerReferences = like.owners
	}
	if equality.Semantic.DeepEqual(&pod.Spec, like.spec) {
		pod.Spec = *like.spec
	}
	pod.Spec.NodeName = node
	pod.Status.Conditions = slices.Clone(pod.Status.Conditions) // decoded with room for more
	pod.Status.ContainerStatuses = slices.Clone(pod.Status.ContainerStatuses)
	for i := range pod.Status.ContainerStatuses {
		shareStatus(&pod.Status.ContainerStatuses[i], pod.Spec.Containers)
	}
}

// of is what is known of an owner's pods; the first one is the model of the others.
func (t *templates) of(owner types.UID, pod *corev1.Pod) template {
	t.mu.Lock()
	defer t.mu.Unlock()
	like, ok := t.known[owner]
	if !ok {
		spec := pod.Spec
		like = template{pod.Labels, pod.OwnerReferences, &spec}
		if len(t.known) >= maxTemplates {
			clear(t.known)
		}
		t.known[owner] = like
	}
	return like
}

// shareStatus has a container's status point to what its specification says, where
// that is the same.
func shareStatus(s *corev1.ContainerStatus, containers []corev1.Container) {
	i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == s.Name })
	if i < 0 {
		return
	}
	c := &containers[i]
	s.Name = c.Name
	if s.Image == c.Image {
		s.Image = c.Image
	}
	if s.ImageID == c.Image {
		s.ImageID = c.Image
	}
	if s.Resources != nil && equality.Semantic.DeepEqual(s.Resources, &c.Resources) {
		s.Resources = &c.Resources
	}
	if s.AllocatedResources != nil && equality.Semantic.DeepEqual(s.AllocatedResources, c.Resources.Requests) {
		s.AllocatedResources = c.Resources.Requests
	}
}
