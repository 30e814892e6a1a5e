package controller

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Expendable sorts pods, the one to go first first: upstream's ranking
// (ActivePodsWithRanks). Crowded nodes are relieved before others, and among
// pods of about the same age chance decides, so that it is not always the same
// failure domain that loses.
func Expendable(pods, related []*corev1.Pod, now time.Time) []*corev1.Pod {
	crowd := map[string]int{}
	for _, pod := range related {
		if Active(pod) {
			crowd[pod.Spec.NodeName]++
		}
	}
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		readyA, sinceA := Ready(a)
		readyB, sinceB := Ready(b)
		byReadyTime := 0
		if readyA && readyB {
			byReadyTime = youngest(sinceA, sinceB, a, b, now)
		}
		return cmp.Or(
			trueLast(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			cmp.Compare(progress(a), progress(b)),
			trueLast(readyA, readyB),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(crowd[b.Spec.NodeName], crowd[a.Spec.NodeName]),
			byReadyTime,
			moreRestarts(a, b),
			youngest(a.CreationTimestamp, b.CreationTimestamp, a, b, now),
		)
	})
	return sorted
}

// Youngest sorts pods, the one to go first first, without regard to nodes, costs and
// chance: upstream's ranking of a job's pods (ActivePods).
func Youngest(pods []*corev1.Pod) []*corev1.Pod {
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		readyA, sinceA := Ready(a)
		readyB, sinceB := Ready(b)
		byReadyTime := 0
		if readyA && readyB {
			byReadyTime = latest(sinceA, sinceB)
		}
		return cmp.Or(
			trueLast(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			cmp.Compare(progress(a), progress(b)),
			trueLast(readyA, readyB),
			byReadyTime,
			moreRestarts(a, b),
			latest(a.CreationTimestamp, b.CreationTimestamp),
		)
	})
	return sorted
}

// latest puts the later time first, and an unset one before all.
func latest(a, b metav1.Time) int {
	if a.IsZero() || b.IsZero() {
		return trueLast(!a.IsZero(), !b.IsZero())
	}
	return b.Compare(a.Time)
}

func trueLast(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// progress orders the phases: pending, unknown, running.
func progress(pod *corev1.Pod) int {
	return slices.Index([]corev1.PodPhase{corev1.PodPending, corev1.PodUnknown, corev1.PodRunning}, pod.Status.Phase)
}

// deletionCost is the pod's own wish, 0 when it has none or an invalid one.
func deletionCost(pod *corev1.Pod) int64 {
	cost, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return cost
}

// moreRestarts puts the pod with the greater restart count first: of ordinary
// containers, then of sidecars.
func moreRestarts(a, b *corev1.Pod) int {
	most := func(pod *corev1.Pod) (containers, sidecars int32) {
		for i := range pod.Status.ContainerStatuses {
			containers = max(containers, pod.Status.ContainerStatuses[i].RestartCount)
		}
		restartable := map[string]bool{}
		for i := range pod.Spec.InitContainers {
			p := pod.Spec.InitContainers[i].RestartPolicy
			restartable[pod.Spec.InitContainers[i].Name] = p != nil && *p == corev1.ContainerRestartPolicyAlways
		}
		for i := range pod.Status.InitContainerStatuses {
			if restartable[pod.Status.InitContainerStatuses[i].Name] {
				sidecars = max(sidecars, pod.Status.InitContainerStatuses[i].RestartCount)
			}
		}
		return containers, sidecars
	}
	ca, sa := most(a)
	cb, sb := most(b)
	return cmp.Or(cmp.Compare(cb, ca), cmp.Compare(sb, sa))
}

// youngest puts the later time first, by orders of magnitude (powers of two) of
// the age; the uid, which is random, decides within one. An unset time is the
// youngest of all.
func youngest(a, b metav1.Time, podA, podB *corev1.Pod, now time.Time) int {
	switch {
	case a.Equal(&b):
		return 0
	case a.IsZero():
		return -1
	case b.IsZero():
		return 1
	}
	return cmp.Or(
		cmp.Compare(magnitude(now.Sub(a.Time)), magnitude(now.Sub(b.Time))),
		cmp.Compare(podA.UID, podB.UID),
	)
}

func magnitude(age time.Duration) int64 {
	if age <= 0 {
		return -1
	}
	return int64(math.Log2(float64(age)))
}
