package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// TestShutdown: ordinary pods go first and critical ones last, each with the time
// of its group; nothing new comes, and the node says why.
func TestShutdown(t *testing.T) {
	tell(t, "shutdown", func(s *story) {
		s.stopAgent()
		s.kubelet.ShutdownGracePeriod = metav1.Duration{Duration: 30 * time.Second}
		s.kubelet.ShutdownGracePeriodCriticalPods = metav1.Duration{Duration: 10 * time.Second}
		ending := make(chan struct{})
		s.ending = ending
		s.engine.Images["stubborn"] = agenttest.Stubborn
		s.startAgent()
		vital, priority := pod("vital", container("app", "app")), int32(systemCritical)
		vital.Spec.Priority = &priority
		s.create(vital)
		s.create(pod("stubborn", container("app", "stubborn")))
		s.pass(time.Second)
		s.say("> the machine goes down")
		close(ending)
		s.pass(time.Second)
		s.create(pod("late", container("app", "app")))
		s.pass(time.Minute)
		s.say("stubborn: %s", s.get("stubborn").Status.Message)
		s.say("late: %s", s.get("late").Status.Message)
		n, err := client.Nodes.Get(s.ctx, s.api, "", "n1")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				s.say("node Ready=%s %s: %s", c.Status, c.Reason, c.Message)
			}
		}
	})
}
