package node

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A node is heard of whenever its lease has changed, whatever its clock says: one whose
// clock was set back renews it to times that are past. The same lease once more is nothing.
func TestPulseOfAClockSetBack(t *testing.T) {
	p := pulses{known: map[string]*pulse{}}
	start := time.Now()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady}}}}
	for i, shows := range []time.Duration{0, 10 * time.Second, -2 * time.Hour, -2*time.Hour + 10*time.Second} {
		now := start.Add(time.Duration(i) * grace / 2)
		at := metav1.NewMicroTime(start.Add(shows))
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: coordinationv1.LeaseSpec{RenewTime: &at}}
		if !p.lease(lease, now) {
			t.Errorf("a renewal at %v is not heard", shows)
		}
		if p.lease(lease, now.Add(time.Second)) {
			t.Errorf("the lease of %v was heard twice", shows)
		}
		if silent, _ := p.silent(node, now.Add(time.Second)); silent {
			t.Errorf("the node is silent at %v", shows)
		}
	}
}
