package replicaset

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/controller"
)

// burst bounds the pods made or removed in one round, as upstream.
const burst = 500

// plan is what to do for one set, and why.
type plan struct {
	create int
	delete []*corev1.Pod
	reason string
}

// decide compares what is wanted with what there is. related is only asked when
// pods must go.
func decide(rs *appsv1.ReplicaSet, active []*corev1.Pod, related func() []*corev1.Pod, now time.Time) plan {
	want, have := int(*rs.Spec.Replicas), len(active)
	reason := fmt.Sprintf("want %d, have %d", want, have)
	switch {
	case have < want:
		return plan{create: min(want-have, burst), reason: reason}
	case have > want:
		n := min(have-want, burst)
		return plan{delete: controller.Expendable(active, related(), now)[:n], reason: reason}
	}
	return plan{reason: reason}
}
