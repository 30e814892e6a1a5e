package sim_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// node registers a node that says it is ready.
func (p *plane) node(name string) {
	p.Helper()
	made, err := client.Nodes.Create(p.Context(), p.admin, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if err != nil {
		p.Fatal(err)
	}
	p.settle()
	if made, err = client.Nodes.Get(p.Context(), p.admin, "", made.Name); err != nil {
		p.Fatal(err)
	}
	made = made.DeepCopy()
	made.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}
	if _, err := client.Nodes.UpdateStatus(p.Context(), p.admin, made); err != nil {
		p.Fatal(err)
	}
}

// beat renews a node's lease until ctx ends.
func (p *plane) beat(ctx context.Context, node string) {
	for ctx.Err() == nil {
		now := metav1.NewMicroTime(time.Now())
		l, err := client.Leases.Get(ctx, p.admin, corev1.NamespaceNodeLease, node)
		if apierrors.IsNotFound(err) {
			l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node}}
			l.Spec.HolderIdentity, l.Spec.RenewTime = &node, &now
			_, err = client.Leases.Create(ctx, p.admin, l)
		} else if err == nil {
			l = l.DeepCopy()
			l.Spec.RenewTime = &now
			_, err = client.Leases.Update(ctx, p.admin, l)
		}
		if err != nil && ctx.Err() == nil {
			p.Errorf("renew lease of %s: %v", node, err)
		}
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
		}
	}
}

func (p *plane) podOn(name, node string) {
	p.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if _, err := client.Pods.Create(p.Context(), p.admin, pod); err != nil {
		p.Fatal(err)
	}
}

// A node that goes silent is marked, its pods are asked to leave when their five
// minutes are over, and are given up when the node is removed.
func TestNodeGoesSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.node("stays")
		p.node("goes")
		go p.beat(ctx, "stays")
		p.podOn("here", "stays")
		p.podOn("there", "goes")
		time.Sleep(2 * time.Minute)
		n, err := client.Nodes.Get(ctx, p.admin, "", "goes")
		if err != nil {
			t.Fatal(err)
		}
		taints := map[string]bool{}
		for _, taint := range n.Spec.Taints {
			taints[string(taint.Effect)+" "+taint.Key] = true
		}
		if n.Status.Conditions[0].Status != corev1.ConditionUnknown || !taints["NoExecute "+corev1.TaintNodeUnreachable] || !taints["NoSchedule "+corev1.TaintNodeUnreachable] {
			t.Errorf("silent node: %v, %v", n.Status.Conditions[0], n.Spec.Taints)
		}
		time.Sleep(6 * time.Minute)
		there, err := client.Pods.Get(ctx, p.admin, "default", "there")
		if err != nil || there.DeletionTimestamp == nil {
			t.Fatalf("pod of the silent node after its toleration: %v, %v", err, there)
		}
		if err := client.Nodes.Delete(ctx, p.admin, "", "goes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := client.Pods.Get(ctx, p.admin, "default", "there"); !apierrors.IsNotFound(err) {
			t.Errorf("pod of the removed node: %v, want not found", err)
		}
		if here, err := client.Pods.Get(ctx, p.admin, "default", "here"); err != nil || here.DeletionTimestamp != nil {
			t.Errorf("pod of the other node: %v, %v", err, here)
		}
		cancel()
		synctest.Wait()
	})
}

// A taint says when it was added only if the control plane has put it there. The time
// of a toleration runs from when it was seen, then, and runs out.
func TestTaintWithoutDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.node("n")
		go p.beat(ctx, "n")
		seconds := func(s int64) []corev1.Toleration {
			return []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &s}}
		}
		for name, tolerations := range map[string][]corev1.Toleration{"plain": nil, "short": seconds(5), "long": seconds(500)} {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
				Spec:       corev1.PodSpec{NodeName: "n", Tolerations: tolerations, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			}
			pod = must[*corev1.Pod](p)(client.Pods.Create(ctx, p.admin, pod)).DeepCopy()
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			must[*corev1.Pod](p)(client.Pods.UpdateStatus(ctx, p.admin, pod))
		}
		taint := func(taints ...corev1.Taint) {
			n := must[*corev1.Node](p)(client.Nodes.Get(ctx, p.admin, "", "n")).DeepCopy()
			n.Spec.Taints = taints
			must[*corev1.Node](p)(client.Nodes.Update(ctx, p.admin, n))
			synctest.Wait()
		}
		leaving := func(name string) bool {
			pod := must[*corev1.Pod](p)(client.Pods.Get(ctx, p.admin, "default", name))
			last := pod.Status.Conditions[len(pod.Status.Conditions)-1]
			doomed := last.Type == corev1.DisruptionTarget && last.ObservedGeneration == 1
			if doomed != (pod.DeletionTimestamp != nil) {
				t.Errorf("pod %s, deleted %v, has the conditions %v", name, pod.DeletionTimestamp, pod.Status.Conditions)
			}
			return doomed
		}
		synctest.Wait() // the mirrors show the pods as they are
		taint(corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute})
		time.Sleep(4 * time.Second)
		if !leaving("plain") || leaving("short") || leaving("long") {
			t.Error("before the shortest time is over, who tolerates nothing goes")
		}
		time.Sleep(2 * time.Second)
		if !leaving("short") || leaving("long") {
			t.Error("after five seconds, who tolerates as many goes")
		}
		taint()
		time.Sleep(10 * time.Minute)
		if leaving("long") {
			t.Error("without the taint nobody goes")
		}
		cancel()
		synctest.Wait()
	})
}
