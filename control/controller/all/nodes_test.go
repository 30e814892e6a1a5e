package all_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

func readyNode(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

// beat renews a node's lease every ten seconds until ctx ends.
func (b *bench) beat(ctx context.Context, node string) {
	for ctx.Err() == nil {
		now := metav1.NewMicroTime(time.Now())
		l, err := client.Leases.Get(ctx, b.server, corev1.NamespaceNodeLease, node)
		if err != nil {
			l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node}}
			l.Spec.RenewTime = &now
			_, err = client.Leases.Create(ctx, b.server, l)
		} else {
			l = l.DeepCopy()
			l.Spec.RenewTime = &now
			_, err = client.Leases.Update(ctx, b.server, l)
		}
		if err != nil {
			b.Errorf("renew lease of %s: %v", node, err)
		}
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
		}
	}
}

func tolerant(name, node string, seconds int64) *corev1.Pod {
	p := backend(name, true, "10.1.0.9")
	p.Spec.NodeName = node
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
		})
	}
	return p
}

// showNodes is each node's Ready status and taints, then the pods that are left.
func (b *bench) showNodes() string {
	b.Helper()
	b.settle()
	nodes, _, err := client.Nodes.List(b.Context(), b.server, "", metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var out []string
	for _, n := range nodes {
		line := n.Name + "=" + string(n.Status.Conditions[0].Status)
		for _, t := range n.Spec.Taints {
			line += fmt.Sprintf(" %s:%s", strings.TrimPrefix(t.Key, "node.kubernetes.io/"), t.Effect)
		}
		out = append(out, line)
	}
	var pods []string
	for _, p := range b.pods() {
		what := p.Name
		if p.Status.Conditions[0].Status != corev1.ConditionTrue {
			what += "(unready)"
		}
		pods = append(pods, what)
	}
	slices.Sort(pods)
	return strings.Join(out, ", ") + " | " + strings.Join(pods, " ")
}

func (b *bench) expectNodes(want string) {
	b.Helper()
	if got := b.showNodes(); got != want {
		b.Errorf("after %v\n got %s\nwant %s", time.Since(epoch), got, want)
	}
}

// epoch is when a bubble's clock starts.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, readyNode("a"), readyNode("b"), tolerant("brief", "b", 30), tolerant("long", "b", 300))
		ctx, silence := context.WithCancel(t.Context())
		go b.beat(t.Context(), "a")
		go b.beat(ctx, "b")
		time.Sleep(time.Hour)
		b.expectNodes("a=True, b=True | brief long")
		silence()
		time.Sleep(30 * time.Second)
		b.expectNodes("a=True, b=True | brief long")
		time.Sleep(30 * time.Second)
		b.expectNodes("a=True, b=Unknown unreachable:NoSchedule unreachable:NoExecute | brief(unready) long(unready)")
		time.Sleep(30 * time.Second)
		b.expectNodes("a=True, b=Unknown unreachable:NoSchedule unreachable:NoExecute | long(unready)")
		time.Sleep(300 * time.Second)
		b.expectNodes("a=True, b=Unknown unreachable:NoSchedule unreachable:NoExecute | ")
	})
}

func TestNodeReturnsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, readyNode("a"), readyNode("b"), tolerant("long", "b", 300))
		go b.beat(t.Context(), "a")
		time.Sleep(2 * time.Minute)
		b.expectNodes("a=True, b=Unknown unreachable:NoSchedule unreachable:NoExecute | long(unready)")
		go b.beat(t.Context(), "b")
		n, err := client.Nodes.Get(t.Context(), b.server, "", "b")
		if err != nil {
			t.Fatal(err)
		}
		n = n.DeepCopy()
		n.Status = readyNode("b").Status
		n.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
		if _, err := client.Nodes.UpdateStatus(t.Context(), b.server, n); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b.expectNodes("a=True, b=True | long(unready)") // ready again is for the node to say
	})
}

// When nobody is heard of any more it is the control plane that is cut off: no
// pod is evicted, and afterwards everybody gets time to speak.
func TestNoMassEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, readyNode("a"), readyNode("b"), tolerant("one", "a", 30), tolerant("two", "b", 30))
		ctx, cut := context.WithCancel(t.Context())
		go b.beat(ctx, "a")
		go b.beat(ctx, "b")
		time.Sleep(5 * time.Minute)
		cut()
		time.Sleep(time.Hour)
		b.expectNodes("a=Unknown unreachable:NoSchedule, b=Unknown unreachable:NoSchedule | one(unready) two(unready)")
	})
}

// Pods of a node that has been removed are given up, but not at once.
func TestPodsOfVanishedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lonely := backend("lonely", true)
		lonely.Spec.NodeName = "gone"
		waiting := backend("waiting", true)
		waiting.Spec.NodeName = ""
		b := start(t, readyNode("a"), lonely, waiting, tolerant("stays", "a", 300))
		go b.beat(t.Context(), "a")
		time.Sleep(30 * time.Second)
		b.expectNodes("a=True | lonely stays waiting")
		time.Sleep(15 * time.Second)
		b.expectNodes("a=True | stays waiting")
	})
}
