package cli

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a node says of a pod that does not start is told once, in its own words, and
// fails it when that will not pass by waiting.
func TestStartingHears(t *testing.T) {
	event := func(kind, reason, message string) *corev1.Event {
		return &corev1.Event{Type: kind, Reason: reason, Message: message}
	}
	for _, c := range []struct {
		name, want string
		event      *corev1.Event
		fatal      bool
	}{
		{"what goes well", "", event("Normal", "Scheduled", "assigned"), false},
		{"what is in the status", "", event("Warning", "FailedScheduling", "0/1 nodes"), false},
		{"a runtime that nobody has", "sampan: c does not run yet: Failed to create pod sandbox: no runtime for \"odd\"\n",
			event("Warning", "FailedCreatePodSandBox", `Failed to create pod sandbox: rpc error: code = InvalidArgument desc = no runtime for "odd"`), true},
		{"something unknown", "sampan: c does not run yet: Odd: sentence\n", event("Warning", "Odd", "sentence"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			g := &starting{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, out: &out, stop: func() {}}
			g.hear(c.event)
			g.hear(c.event)
			if out.String() != c.want {
				t.Errorf("told %q, want %q", out.String(), c.want)
			}
			if (g.late != nil) != c.fatal {
				t.Errorf("given up later: %v, want %v", g.late != nil, c.fatal)
			}
			ready := g.pod.DeepCopy()
			ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}}
			if g.see(ready, podState{}); g.late != nil || g.failure != "" {
				t.Errorf("a sandbox that is there at last is still given up for %q", g.failure)
			}
		})
	}
}
