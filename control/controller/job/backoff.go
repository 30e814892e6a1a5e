package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Delays before a failed pod is replaced, upstream's: doubling with each failure
// since the last success.
const (
	firstDelay   = 10 * time.Second
	longestDelay = 10 * time.Minute
)

// streak is a job's failures since a pod last succeeded. It is kept in memory:
// after a restart the first delay is the shortest again.
type streak struct {
	failures int
	last     time.Time
}

// after is the streak once more pods have ended.
func (s streak) after(succeeded, failed []*corev1.Pod) streak {
	if len(succeeded) > 0 {
		success := latest(succeeded)
		failed = slices.DeleteFunc(slices.Clone(failed), func(p *corev1.Pod) bool { return !ended(p).After(success) })
		s = streak{}
	}
	if len(failed) == 0 {
		return s
	}
	return streak{failures: s.failures + len(failed), last: latest(failed)}
}

// wait is how long until the next pod may be made.
func (s streak) wait(now time.Time) time.Duration {
	if s.failures == 0 {
		return 0
	}
	delay := firstDelay
	for i := 1; i < s.failures && delay < longestDelay; i++ {
		delay *= 2
	}
	return max(0, min(delay, longestDelay)-now.Sub(s.last))
}

func latest(pods []*corev1.Pod) time.Time {
	var last time.Time
	for _, p := range pods {
		if t := ended(p); t.After(last) {
			last = t
		}
	}
	return last
}

// ended is when a pod came to its end: when its last container exited; else when
// it ceased to be ready; else when it was asked to go; else, which does not
// happen where a node looks after it, when it was made.
func ended(pod *corev1.Pod) time.Time {
	if t, ok := exitedAt(pod); ok {
		return t
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Time
		}
	}
	if pod.DeletionTimestamp != nil {
		grace := int64(0)
		if pod.DeletionGracePeriodSeconds != nil {
			grace = *pod.DeletionGracePeriodSeconds
		}
		return pod.DeletionTimestamp.Add(-time.Duration(grace) * time.Second)
	}
	return pod.CreationTimestamp.Time
}

// exitedAt is when the last of the containers and sidecars exited; false while
// one has not.
func exitedAt(pod *corev1.Pod) (time.Time, bool) {
	all := slices.Clone(pod.Status.ContainerStatuses)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		for _, s := range pod.Status.InitContainerStatuses {
			if s.Name == c.Name {
				all = append(all, s)
			}
		}
	}
	var last time.Time
	for _, s := range all {
		if s.State.Terminated == nil || s.State.Terminated.FinishedAt.IsZero() {
			return time.Time{}, false
		}
		if t := s.State.Terminated.FinishedAt.Time; t.After(last) {
			last = t
		}
	}
	return last, !last.IsZero()
}
