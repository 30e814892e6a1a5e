package loadbalancer

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func balanced(name string, age int, port int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name),
		CreationTimestamp: metav1.NewTime(time.Unix(int64(1000-age), 0))}}
	s.Spec.Type, s.Spec.Ports = corev1.ServiceTypeLoadBalancer, []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}}
	return s
}

func TestConflict(t *testing.T) {
	other := balanced("foreign", 90, 80)
	other.Spec.LoadBalancerClass = new("example.com/lb")
	going := balanced("going", 80, 81)
	going.DeletionTimestamp = &metav1.Time{}
	all := []*corev1.Service{balanced("old", 50, 80), balanced("new", 10, 80), other, going}
	for _, c := range []struct {
		s    *corev1.Service
		want string
	}{
		{all[0], ""},
		{all[1], "port 80/TCP is used by service ns/old"},
		{balanced("one", 1, 81), ""},
		{balanced("api", 1, 6443), "port 6443/TCP is used by the API server"},
	} {
		if got := conflict(c.s, all, map[int32]string{6443: "the API server"}); got != c.want {
			t.Errorf("%s: %q, want %q", c.s.Name, got, c.want)
		}
	}
}

func TestNodes(t *testing.T) {
	n := &corev1.Node{Status: corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeHostName, Address: "n"}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}}
	if got := fmt.Sprint(addresses(n), eligible(n)); got != "[10.0.0.1] true" {
		t.Error(got)
	}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "1.2.3.4"})
	n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
	if got := fmt.Sprint(addresses(n), eligible(n)); got != "[1.2.3.4] false" {
		t.Error(got)
	}
}
