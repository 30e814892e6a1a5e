package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ranked is a pod that has been there, and ready, for so long; 0 stands for never.
func ranked(uid string, age, ready time.Duration, cost string) *corev1.Pod {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Annotations: map[string]string{corev1.PodDeletionCost: cost}}}
	pod.Spec.NodeName, pod.Status.Phase = "n", corev1.PodRunning
	if age > 0 {
		pod.CreationTimestamp = metav1.NewTime(now.Add(-age))
	}
	if ready > 0 {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-ready))}}
	}
	return pod
}

// A job's pods go by their age alone: to the second, and whatever they cost.
func TestYoungest(t *testing.T) {
	for _, c := range []struct {
		why           string
		first, second *corev1.Pod
	}{
		{"it is younger, if only by a second", ranked("z", time.Hour, 0, "9"), ranked("a", time.Hour+time.Second, 0, "1")},
		{"it has been ready for less", ranked("z", 2*time.Hour, time.Minute, ""), ranked("a", time.Hour, time.Minute+time.Second, "")},
		{"it is not ready", ranked("z", 9*time.Hour, 0, ""), ranked("a", time.Hour, time.Minute, "")},
		{"nobody knows its age", ranked("z", 0, 0, ""), ranked("a", time.Second, 0, "")},
	} {
		for _, pods := range [][]*corev1.Pod{{c.first, c.second}, {c.second, c.first}} {
			if got := Youngest(pods)[0]; got != c.first {
				t.Errorf("%s: %q goes first", c.why, got.UID)
			}
		}
	}
}
