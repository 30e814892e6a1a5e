package endpoints

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// backend is a pod with an address and a named port; a port 0 is none.
func backend(ip string, ready bool, port int32) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: ip, UID: types.UID(ip)}}
	pod.Spec.NodeName, pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = "n", corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
	if ready {
		pod.Status.Conditions[0].Status = corev1.ConditionTrue
	}
	pod.Spec.Containers = []corev1.Container{{Name: "c"}}
	if port > 0 {
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: port, Protocol: corev1.ProtocolTCP}}
	}
	return pod
}

func service(ports ...intstr.IntOrString) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}}}
	for i, p := range ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Protocol: corev1.ProtocolTCP, TargetPort: p})
	}
	return svc
}

func shown(subsets []corev1.EndpointSubset) string {
	var out []string
	for _, s := range subsets {
		text := ""
		for _, a := range s.Addresses {
			text += a.IP + " "
		}
		for _, a := range s.NotReadyAddresses {
			text += "(" + a.IP + ") "
		}
		for _, p := range s.Ports {
			text += fmt.Sprintf(":%s=%d", p.Name, p.Port)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// Ports that the same addresses have are one subset, and addresses are in order.
func TestSubsets(t *testing.T) {
	name, number := intstr.FromString("http"), intstr.FromInt32(9090)
	headless := service()
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	published := service(number)
	published.Spec.PublishNotReadyAddresses = true
	gone := backend("10.1.0.9", true, 0)
	gone.DeletionTimestamp = &metav1.Time{}
	for _, c := range []struct {
		why  string
		svc  *corev1.Service
		pods []*corev1.Pod
		want string
	}{
		{"in order, ready or not", service(name, number), []*corev1.Pod{backend("10.1.0.2", true, 80), backend("10.1.0.1", true, 80), backend("10.1.0.3", false, 80)},
			"10.1.0.1 10.1.0.2 (10.1.0.3) :p0=80:p1=9090"},
		{"a name is another number in each pod", service(name, number), []*corev1.Pod{backend("10.1.0.1", true, 80), backend("10.1.0.2", true, 8080)},
			"10.1.0.1 :p0=80; 10.1.0.2 :p0=8080; 10.1.0.1 10.1.0.2 :p1=9090"},
		{"who does not have it is left out of it", service(name, number), []*corev1.Pod{backend("10.1.0.1", true, 80), backend("10.1.0.2", true, 0)},
			"10.1.0.1 :p0=80; 10.1.0.1 10.1.0.2 :p1=9090"},
		{"nobody has it", service(name), []*corev1.Pod{backend("10.1.0.1", true, 0)}, ""},
		{"without ports, but headless", headless, []*corev1.Pod{backend("10.1.0.1", true, 0)}, "10.1.0.1 "},
		{"without any", service(), []*corev1.Pod{backend("10.1.0.1", true, 0)}, ""},
		{"ready for it or not, and going", published, []*corev1.Pod{backend("10.1.0.1", false, 0), gone}, "10.1.0.1 10.1.0.9 :p0=9090"},
		{"who goes serves no more", service(number), []*corev1.Pod{gone}, ""},
	} {
		if got := shown(subsetsOf(c.svc, c.pods)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.why, got, c.want)
		}
	}
}

// Beyond a thousand addresses each subset loses its share, those first that are not ready.
func TestTruncate(t *testing.T) {
	for _, c := range []struct{ ready, others, wantReady, wantOthers []int }{
		{[]int{500, 500}, []int{0, 0}, []int{500, 500}, nil},
		{[]int{400, 400}, []int{300, 100}, []int{400, 400}, []int{150, 50}},
		{[]int{1500, 500}, []int{9, 9}, []int{750, 250}, []int{0, 0}},
		{[]int{1000, 0}, []int{5, 5}, []int{1000, 0}, []int{0, 0}},
		{[]int{1, 1, 1, 1998}, []int{0, 0, 0, 0}, []int{1, 1, 1, 997}, []int{0, 0, 0, 0}},
	} {
		e := &corev1.Endpoints{}
		for i := range c.ready {
			e.Subsets = append(e.Subsets, corev1.EndpointSubset{
				Addresses: make([]corev1.EndpointAddress, c.ready[i]), NotReadyAddresses: make([]corev1.EndpointAddress, c.others[i])})
		}
		if cut := truncate(e); cut != (c.wantOthers != nil) {
			t.Errorf("%v %v: cut %t", c.ready, c.others, cut)
		}
		for i := range e.Subsets {
			others := c.others
			if c.wantOthers != nil {
				others = c.wantOthers
			}
			if a, b := len(e.Subsets[i].Addresses), len(e.Subsets[i].NotReadyAddresses); a != c.wantReady[i] || b != others[i] {
				t.Errorf("%v %v: subset %d has %d and %d, want %d and %d", c.ready, c.others, i, a, b, c.wantReady[i], others[i])
			}
		}
	}
}
