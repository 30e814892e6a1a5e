package agent

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// An agent's status patch is what upstream's comparison makes of the two as JSON, and the
// pod's UID.
func TestStatusPatchAsOfJSON(t *testing.T) {
	at := metav1.NewTime(time.Unix(1700000000, 0))
	pending := corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBurstable,
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: at}}}
	started := true
	running := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &at, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, QOSClass: corev1.PodQOSBurstable,
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: at, ObservedGeneration: 3},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "c", RestartCount: 2, Ready: true, Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}}}}
	for name, c := range map[string]struct{ from, to corev1.PodStatus }{
		"first": {corev1.PodStatus{}, pending}, "starts": {pending, running}, "back": {running, pending}, "emptied": {running, corev1.PodStatus{}}, "same": {running, running},
	} {
		got, err := statusPatch(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: types.UID("u")}, Status: c.from}, c.to)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := json.Marshal(corev1.Pod{Status: c.from})
		after, _ := json.Marshal(corev1.Pod{Status: c.to})
		diff, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
		if err != nil {
			t.Fatal(err)
		}
		var ours, theirs map[string]any
		_ = json.Unmarshal(diff, &theirs)
		_ = json.Unmarshal(got, &ours)
		theirs["metadata"] = map[string]any{"uid": "u"}
		if !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s: %s, want %s", name, got, diff)
		}
	}
}
