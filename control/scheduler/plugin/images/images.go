// Package images prefers nodes that have a pod's images already.
package images

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// The sizes between which having an image counts; upstream's numbers.
const (
	small = 23 << 20
	large = 1000 << 20
)

// Score is upstream's ImageLocality.
type Score struct{}

// Name implements scheduler.Score.
func (Score) Name() string { return "ImageLocality" }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 1 }

// Depends implements scheduler.Score. By how many nodes an image is had counts
// too; the scheduler sees to that.
func (Score) Depends() scheduler.Dependence { return scheduler.OnNode }

// For implements scheduler.Score.
func (Score) For(pod *corev1.Pod, v scheduler.View) scheduler.Rating {
	r := &rating{view: v}
	for i := range pod.Spec.InitContainers {
		r.names = append(r.names, normalised(pod.Spec.InitContainers[i].Image))
	}
	for i := range pod.Spec.Containers {
		r.names = append(r.names, normalised(pod.Spec.Containers[i].Image))
	}
	for i := range pod.Spec.Volumes {
		if image := pod.Spec.Volumes[i].Image; image != nil {
			r.names = append(r.names, normalised(image.Reference))
		}
	}
	return r
}

type rating struct {
	view  scheduler.View
	names []string
}

// Rate grows with the bytes that need not be pulled; an image that few nodes have
// counts less, lest one node gets all its pods.
func (r *rating) Rate(n *scheduler.Node) int64 {
	if len(n.Images) == 0 {
		return 0
	}
	var sum int64
	total := float64(len(r.view.Nodes()))
	for _, name := range r.names {
		if size, ok := n.Images[name]; ok {
			sum += int64(float64(size) * float64(r.view.NodesWithImage(name)) / total)
		}
	}
	most := int64(large * len(r.names))
	sum = min(max(sum, small), most)
	return scheduler.MaxScore * (sum - small) / (most - small)
}

// Normalise implements scheduler.Rating.
func (*rating) Normalise([]*scheduler.Node, []int64) {}

// Plain implements scheduler.PlainRating.
func (*rating) Plain() {}

// normalised adds the tag that a bare name means; the
// default registry goes without saying.
func normalised(image string) string {
	image = strings.TrimPrefix(strings.TrimPrefix(image, "docker.io/"), "library/")
	if strings.LastIndexByte(image, ':') <= strings.LastIndexByte(image, '/') {
		image += ":latest"
	}
	return image
}
