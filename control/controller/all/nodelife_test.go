package all_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// says lets a node report of itself.
func (b *bench) says(node string, ready corev1.ConditionStatus) {
	b.Helper()
	n, err := client.Nodes.Get(b.Context(), b.server, "", node)
	if err != nil {
		b.Fatal(err)
	}
	n = n.DeepCopy()
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	if _, err := client.Nodes.UpdateStatus(b.Context(), b.server, n); err != nil {
		b.Fatal(err)
	}
	b.settle()
}

// What a node says of its pods counts as long as it speaks: one that says that it is not
// ready keeps them in service until they have to leave.
func TestNodeThatSaysItIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, readyNode("a"), readyNode("b"), tolerant("long", "b", 300))
		go b.beat(t.Context(), "a")
		go b.beat(t.Context(), "b")
		time.Sleep(time.Minute)
		b.says("b", corev1.ConditionFalse)
		time.Sleep(time.Minute)
		b.expectNodes("a=True, b=False not-ready:NoSchedule not-ready:NoExecute | long")
		time.Sleep(5 * time.Minute)
		b.expectNodes("a=True, b=False not-ready:NoSchedule not-ready:NoExecute | ")
	})
}

// A node whose pods have been told to leave, and that changes its sort of illness, keeps
// one of the two taints at every moment: those who wait for their time do not begin anew.
func TestTaintsAreSwappedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, readyNode("a"), readyNode("b"), readyNode("c"), tolerant("long", "b", 300))
		go b.beat(t.Context(), "a")
		ctx, silence := context.WithCancel(t.Context())
		go b.beat(ctx, "b")
		go b.beat(ctx, "c")
		time.Sleep(time.Minute)
		b.says("b", corev1.ConditionFalse)
		b.says("c", corev1.ConditionFalse) // whose turn is ten seconds later
		b.expectNodes("a=True, b=False not-ready:NoSchedule not-ready:NoExecute, c=False not-ready:NoSchedule | long")
		time.Sleep(10 * time.Second)
		b.expectNodes("a=True, b=False not-ready:NoSchedule not-ready:NoExecute, c=False not-ready:NoSchedule not-ready:NoExecute | long")
		silence()
		time.Sleep(time.Minute)
		b.expectNodes("a=True, b=Unknown unreachable:NoSchedule unreachable:NoExecute, c=Unknown unreachable:NoSchedule unreachable:NoExecute | long(unready)")
		b.says("b", corev1.ConditionFalse)
		b.expectNodes("a=True, b=False not-ready:NoSchedule not-ready:NoExecute, c=Unknown unreachable:NoSchedule unreachable:NoExecute | long(unready)")
	})
}

// Of a silent node nobody knows whether its pods serve, those that are going included.
func TestGoingPodsOfSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		going := tolerant("going", "b", 3600)
		going.DeletionTimestamp, going.Finalizers = &metav1.Time{Time: epoch.Add(time.Hour)}, []string{"test/held"}
		b := start(t, readyNode("a"), readyNode("b"), going)
		go b.beat(t.Context(), "a")
		time.Sleep(2 * time.Minute)
		b.expectNodes("a=True, b=Unknown unreachable:NoSchedule unreachable:NoExecute | going(unready)")
	})
}
