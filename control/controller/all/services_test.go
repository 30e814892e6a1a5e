package all_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
)

func service(name string, spec corev1.ServiceSpec) *corev1.Service {
	spec.Selector = map[string]string{"app": "web"}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: spec}
}

// backend is a pod with addresses, ready or not.
func backend(name string, ready bool, ips ...string) *corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	return p
}

// nodeIn is a node in a zone.
func nodeIn(name, zone string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

// slices shows a service's endpoint slices, a line each.
func (b *bench) slices(service string) []string {
	b.Helper()
	b.settle()
	all, _, err := client.EndpointSlices.List(b.Context(), b.server, "default", metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
	if err != nil {
		b.Fatal(err)
	}
	var lines []string
	for _, s := range all {
		var ports, endpoints []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%s=%d", *p.Name, *p.Port))
		}
		for _, e := range s.Endpoints {
			what := e.Addresses[0]
			for name, is := range map[string]*bool{"!ready": e.Conditions.Ready, "!serving": e.Conditions.Serving} {
				if !*is {
					what += name
				}
			}
			if *e.Conditions.Terminating {
				what += "!terminating"
			}
			if strings.Count(what, "!") > 1 {
				parts := strings.Split(what, "!")
				slices.Sort(parts[1:])
				what = strings.Join(parts, "!")
			}
			endpoints = append(endpoints, what)
		}
		slices.Sort(endpoints)
		lines = append(lines, fmt.Sprintf("%s [%s] %s", s.AddressType, strings.Join(ports, " "), strings.Join(endpoints, " ")))
	}
	slices.Sort(lines)
	return lines
}

func (b *bench) expectSlices(service string, want ...string) {
	b.Helper()
	if got := b.slices(service); !slices.Equal(got, want) {
		b.Errorf("slices of %s:\n got %q\nwant %q", service, got, want)
	}
}

// addresses shows the Endpoints object.
func (b *bench) addresses(name string) string {
	b.Helper()
	e, err := client.Endpoints.Get(b.Context(), b.server, "default", name)
	if err != nil {
		b.Fatal(err)
	}
	var out []string
	for _, s := range e.Subsets {
		for _, p := range s.Ports {
			out = append(out, fmt.Sprintf("%s=%d", p.Name, p.Port))
		}
		for _, a := range s.Addresses {
			out = append(out, a.IP)
		}
		for _, a := range s.NotReadyAddresses {
			out = append(out, "("+a.IP+")")
		}
	}
	return strings.Join(out, " ")
}

func TestEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nodeIn("n1", "z"),
			service("web", corev1.ServiceSpec{
				ClusterIP: "10.0.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
				Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http"), Protocol: corev1.ProtocolTCP}},
			}),
			backend("a", true, "10.1.0.1", "fd00::1"), backend("b", false, "10.1.0.2"), backend("c", true),
		)
		b.expectSlices("web", "IPv4 [http=8080] 10.1.0.1 10.1.0.2!ready!serving")
		if got, want := b.addresses("web"), "http=8080 10.1.0.1 (10.1.0.2)"; got != want {
			t.Errorf("endpoints %q, want %q", got, want)
		}

		// A pod on its way out still serves, but is not ready.
		pod, err := client.Pods.Get(t.Context(), b.server, "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		pod = pod.DeepCopy()
		pod.Finalizers = []string{"test/slow"}
		if _, err := client.Pods.Update(t.Context(), b.server, pod); err != nil {
			t.Fatal(err)
		}
		if err := client.Pods.Delete(t.Context(), b.server, "default", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.expectSlices("web", "IPv4 [http=8080] 10.1.0.1!ready!terminating 10.1.0.2!ready!serving")
		if got, want := b.addresses("web"), "http=8080 (10.1.0.2)"; got != want {
			t.Errorf("endpoints %q, want %q", got, want)
		}
	})
}

func TestHeadlessDualStackWithoutPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t,
			service("db", corev1.ServiceSpec{
				ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true,
				IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			}),
			backend("a", false, "10.1.0.1", "fd00::1"),
		)
		b.expectSlices("db", "IPv4 [] 10.1.0.1!serving", "IPv6 [] fd00::1!serving")
		if err := client.Pods.Delete(t.Context(), b.server, "default", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.expectSlices("db", "IPv4 [] ", "IPv6 [] ")
		// The collector takes the slices along with their owner.
		if err := client.Services.Delete(t.Context(), b.server, "default", "db", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.expectSlices("db")
	})
}

// Slices are filled to a hundred, and a change touches only the slice it is in.
func TestManyEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := []client.Object{nodeIn("n1", "z"), service("big", corev1.ServiceSpec{ClusterIP: "10.0.0.1"})}
		for i := range 250 {
			seed = append(seed, backend(fmt.Sprintf("p%03d", i), true, fmt.Sprintf("10.1.%d.%d", i/100, i%100)))
		}
		b := start(t, seed...)
		sizes := func() (sizes []int, revisions map[string]bool) {
			b.settle()
			revisions = map[string]bool{}
			all, _, err := client.EndpointSlices.List(t.Context(), b.server, "default", metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				sizes = append(sizes, len(s.Endpoints))
				revisions[s.ResourceVersion] = true
			}
			slices.Sort(sizes)
			return sizes, revisions
		}
		got, before := sizes()
		if !slices.Equal(got, []int{50, 100, 100}) {
			t.Errorf("slices of %v endpoints, want 50, 100, 100", got)
		}
		if err := client.Pods.Delete(t.Context(), b.server, "default", "p007", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		got, after := sizes()
		changed := 0
		for rev := range after {
			if !before[rev] {
				changed++
			}
		}
		if changed != 1 || !slices.Equal(got, []int{50, 99, 100}) {
			t.Errorf("%d slices changed, now of %v endpoints; want one, 50, 99, 100", changed, got)
		}
		time.Sleep(20 * time.Second)
		if _, later := sizes(); len(later) != 3 || !equalSets(later, after) {
			t.Error("slices change though nothing does")
		}
	})
}

func equalSets(a, b map[string]bool) bool {
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return len(a) == len(b)
}
