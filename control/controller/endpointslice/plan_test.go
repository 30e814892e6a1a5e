package endpointslice

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func serviceOfTest(uid string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: types.UID(uid)}}
	s.Spec = corev1.ServiceSpec{ClusterIP: "10.96.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}}}
	for _, f := range change {
		f(s)
	}
	return s
}

// podsOf reads "+" as ready, "-" as not, "x" as going but ready, "0" as one without an
// address, "e" as one that has ended, "6" as ready with an address of the other family,
// "l" as ready on a node that is not there.
func podsOf(text string) []*corev1.Pod {
	var all []*corev1.Pod
	for i, how := range text {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", i), UID: types.UID(fmt.Sprintf("u%d", i))}}
		p.Spec.NodeName = "n"
		p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)}}
		ready := corev1.ConditionTrue
		switch how {
		case '-':
			ready = corev1.ConditionFalse
		case 'x':
			p.DeletionTimestamp = &metav1.Time{}
		case 'l':
			p.Spec.NodeName = "gone"
		case '0':
			p.Status.PodIPs = nil
		case 'e':
			p.Status.Phase = corev1.PodFailed
		case '6':
			p.Status.PodIPs[0].IP = fmt.Sprintf("fd00::%d", i+1)
		}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
		all = append(all, p)
	}
	return all
}

// told is a plan in words: what of each slice, and its endpoints by their conditions.
func (p plan) told() string {
	var words []string
	for _, s := range p.create {
		words = append(words, "create "+told(s))
	}
	for _, s := range p.update {
		words = append(words, "update "+s.Name+" "+told(s))
	}
	for _, s := range p.remove {
		words = append(words, "remove "+s.Name)
	}
	for _, pod := range p.lost {
		words = append(words, "lose "+pod.Name)
	}
	return strings.Join(words, ", ")
}

func told(s *discoveryv1.EndpointSlice) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s/%d", s.AddressType, len(s.Ports))
	if len(s.Endpoints) > 5 {
		fmt.Fprintf(&out, " %d", len(s.Endpoints))
		return out.String()
	}
	for _, e := range s.Endpoints {
		fmt.Fprintf(&out, " %s", e.TargetRef.Name)
		if *e.Conditions.Ready {
			out.WriteString("r")
		}
		if *e.Conditions.Serving {
			out.WriteString("s")
		}
		if *e.Conditions.Terminating {
			out.WriteString("t")
		}
	}
	return out.String()
}

// stored gives slices names, as the server does.
func stored(all []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	for i, s := range all {
		s.Name = fmt.Sprintf("s%d", i)
	}
	return all
}

func TestDecide(t *testing.T) {
	nowhere := places{zone: func(node string) (string, bool) { return "", node != "gone" }}
	publish := func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }
	both := func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	}
	portless := func(s *corev1.Service) { s.Spec.Ports, s.Spec.ClusterIP = nil, corev1.ClusterIPNone }
	going := func(s *corev1.Service) { s.DeletionTimestamp = &metav1.Time{} }
	other := func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(9090) }
	labelled := func(s *corev1.Service) { s.Labels = map[string]string{"team": "a"} }
	service := serviceOfTest
	for _, c := range []struct {
		name   string
		before *corev1.Service // what there is was made for it and had; nil: nothing
		had    string
		after  *corev1.Service
		have   string
		want   string
	}{
		{"nobody is behind it: a slice says so", nil, "", service("1"), "", "create IPv4/0"},
		{"nobody still", service("1"), "", service("1"), "", ""},
		{"the first one comes: the empty slice becomes its", service("1"), "", service("1"), "+", "update s0 IPv4/1 p0rs"},
		{"the last one goes", service("1"), "+", service("1"), "", "update s0 IPv4/0"},
		{"conditions", nil, "", service("1"), "+-x", "create IPv4/1 p0rs p1 p2st"},
		{"not ready, and wanted all the same", nil, "", service("1", publish), "-x", "create IPv4/1 p0r p1rst"},
		{"ended, or without an address", nil, "", service("1"), "+e0", "create IPv4/1 p0rs"},
		{"another family", nil, "", service("1"), "6", "create IPv4/0"},
		{"both families", nil, "", service("1", both), "+6", "create IPv4/1 p0rs, create IPv6/1 p1rs"},
		{"a family less", service("1", both), "+6", service("1"), "+6", "remove s1"},
		{"without ports", nil, "", service("1", portless), "+", "create IPv4/0 p0rs"},
		{"the same again", service("1"), "+-", service("1"), "+-", ""},
		{"one becomes ready", service("1"), "+-", service("1"), "++", "update s0 IPv4/1 p0rs p1rs"},
		{"other ports: the slice gets them", service("1"), "+", service("1", other), "+", "update s0 IPv4/1 p0rs"},
		{"other ports, in more slices than are needed now", service("1"), strings.Repeat("+", 101), service("1", other), "+", "update s0 IPv4/1 p0rs, remove s1"},
		{"going, and one pod more", service("1"), strings.Repeat("+", 100), service("1", going), strings.Repeat("+", 101), ""},
		{"going, and one pod less", service("1"), "++", service("1", going), "+", "update s0 IPv4/1 p0rs"},
		{"on a node that is not there", service("1"), "+", service("1"), "+l", "lose p1"},
		{"all on a node that is not there", service("1"), "+", service("1"), "l", "update s0 IPv4/0, lose p0"},
		{"on a node that is not there, in both families", nil, "", service("1", both), "l", "create IPv4/0, create IPv6/0, lose p0"},
		{"on a node that is not there, and wanted all the same", nil, "", service("1", publish), "+l", "create IPv4/1 p0rs p1rs"},
		{"no more room for all in the fullest, but in another", service("1"), strings.Repeat("+", 190), service("1"), strings.Repeat("+", 195), "update s1 IPv4/1 95"},
		{"room for all in none: a new one, rather than two changed", service("1"), strings.Repeat("+", 190), service("1"), strings.Repeat("+", 201), "create IPv4/1 11"},
		{"other labels", service("1"), "+", service("1", labelled), "+", "update s0 IPv4/1 p0rs"},
		{"another service of the name", service("1"), "+", service("2"), "+", "create IPv4/1 p0rs, remove s0"},
		{"more than a slice holds", nil, "", service("1"), strings.Repeat("+", 150), "create IPv4/1 100, create IPv4/1 50"},
		{"a full one and one more", service("1"), strings.Repeat("+", 100), service("1"), strings.Repeat("+", 101), "create IPv4/1 p100rs"},
		{"two slices, and one pod goes: the others keep their places", service("1"), strings.Repeat("+", 101), service("1"), strings.Repeat("+", 100), "update s0 IPv4/1 99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var have []*discoveryv1.EndpointSlice
			if c.before != nil {
				have = stored(decide(c.before, podsOf(c.had), nil, nowhere).create)
			}
			if got := decide(c.after, podsOf(c.have), have, nowhere).told(); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}
