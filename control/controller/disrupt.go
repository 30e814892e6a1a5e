package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// SetPodCondition puts c into status; it says whether that changed anything. The
// time of transition changes only with the condition's status.
func SetPodCondition(status *corev1.PodStatus, c corev1.PodCondition, now time.Time) bool {
	c.LastTransitionTime = metav1.NewTime(now)
	i := slices.IndexFunc(status.Conditions, func(have corev1.PodCondition) bool { return have.Type == c.Type })
	if i < 0 {
		status.Conditions = append(status.Conditions, c)
		return true
	}
	have := status.Conditions[i]
	if have.Status == c.Status {
		c.LastTransitionTime = have.LastTransitionTime
	}
	status.Conditions[i] = c
	return have.Status != c.Status || have.Reason != c.Reason || have.Message != c.Message
}

// PatchPodStatus writes the conditions, the phase and the observed generation in
// which next differs from pod, if it is still the same pod. Other parts of the
// status are the node's. New conditions come last, as next has them.
func PatchPodStatus(ctx context.Context, t client.Transport, pod *corev1.Pod, next corev1.PodStatus) error {
	status := map[string]any{}
	if next.Phase != pod.Status.Phase {
		status["phase"] = next.Phase
	}
	var changed []corev1.PodCondition
	for _, c := range next.Conditions {
		if !slices.Contains(pod.Status.Conditions, c) {
			changed = append(changed, c)
		}
	}
	if len(changed) > 0 {
		order := make([]map[string]any, len(next.Conditions))
		for i, c := range next.Conditions {
			order[i] = map[string]any{"type": c.Type}
		}
		status["conditions"], status["$setElementOrder/conditions"] = changed, order // merged by type
	}
	if next.ObservedGeneration != pod.Status.ObservedGeneration {
		status["observedGeneration"] = next.ObservedGeneration
	}
	if len(status) == 0 {
		return nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encode status patch: %w", err)
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("status")
	if _, err := client.Pods.Patch(ctx, t, at, client.Patch{Type: types.StrategicMergePatchType, Data: data}); err != nil {
		return fmt.Errorf("patch status of pod %q: %w", pod.Name, err)
	}
	return nil
}

// Disruption is the condition of a pod that somebody is about to end.
func Disruption(reason, message string) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message}
}

// Tolerates says whether t tolerates taint.
func Tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Value == taint.Value
	}
	return false
}
