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

// For implements scheduler.Score.
func (Score) For(pod *corev1.Pod, v scheduler.View, _ []*scheduler.Node) scheduler.Rating {
	nodes := v.Nodes()
	r := rating{containers: int64(len(pod.Spec.Containers)), total: int64(len(nodes)), having: map[string]int64{}}
	for _, c := range pod.Spec.Containers {
		name := normalised(c.Image)
		if _, ok := r.having[name]; ok {
			continue
		}
		r.having[name] = 0
		for _, n := range nodes {
			if _, ok := n.Images[name]; ok {
				r.having[name]++
			}
		}
	}
	return r
}

type rating struct {
	containers, total int64
	// having counts the nodes that have an image.
	having map[string]int64
}

// Rate grows with the bytes that need not be pulled; an image that few nodes have
// counts less, lest one node gets all its pods.
func (r rating) Rate(n *scheduler.Node) int64 {
	var sum int64
	for name, having := range r.having {
		sum += n.Images[name] * having / max(1, r.total)
	}
	most := large * r.containers
	sum = min(max(sum, small), most)
	if most <= small {
		return 0
	}
	return scheduler.MaxScore * (sum - small) / (most - small)
}

func (rating) Normalise([]int64) {}

// normalised adds the tag that a bare name means; the
// default registry goes without saying.
func normalised(image string) string {
	image = strings.TrimPrefix(strings.TrimPrefix(image, "docker.io/"), "library/")
	if strings.LastIndexByte(image, ':') <= strings.LastIndexByte(image, '/') {
		image += ":latest"
	}
	return image
}
