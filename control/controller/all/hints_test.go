package all_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// hints shows whose traffic the endpoints of a service are for, by their pods' names.
func (b *bench) hints(service string) string {
	b.Helper()
	b.settle()
	all, _, err := client.EndpointSlices.List(b.Context(), b.server, "default", metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
	if err != nil {
		b.Fatal(err)
	}
	var words []string
	for _, s := range all {
		for _, e := range s.Endpoints {
			word := e.TargetRef.Name
			if e.Hints != nil {
				word += ":"
				for _, n := range e.Hints.ForNodes {
					word += n.Name + "/"
				}
				for _, z := range e.Hints.ForZones {
					word += z.Name
				}
			}
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// told are the events about services.
func (b *bench) told() []string {
	b.Helper()
	all, _, err := client.Events.List(b.Context(), b.server, "default", metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var lines []string
	for _, e := range all {
		if e.InvolvedObject.Kind == "Service" {
			lines = append(lines, fmt.Sprintf("%s %s %s (%s)", e.Type, e.Reason, e.Message, e.Source.Component))
		}
	}
	slices.Sort(lines)
	return lines
}

// A service's traffic stays in its zone while that is fair, and by whatever way it is
// asked for; the service's events say what has become of it.
func TestTrafficStaysNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := []client.Object{service("web", corev1.ServiceSpec{ClusterIP: "10.0.0.1"}), nodeIn("n1", "east"), nodeIn("n2", "west")}
		for i, node := range []string{"n1", "n2", "n2", "n2"} {
			pod := backend(fmt.Sprint("p", i), true, fmt.Sprintf("10.1.0.%d", i+1))
			pod.Spec.NodeName = node
			seed = append(seed, pod)
		}
		b := start(t, seed...)
		edit := func(mode string, distribution *string) {
			svc, err := client.Services.Get(t.Context(), b.server, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			svc = svc.DeepCopy()
			svc.Annotations = map[string]string{corev1.AnnotationTopologyMode: mode}
			svc.Spec.TrafficDistribution = distribution
			if _, err := client.Services.Update(t.Context(), b.server, svc); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(want string) {
			t.Helper()
			if got := b.hints("web"); got != want {
				t.Errorf("hints %q, want %q", got, want)
			}
		}
		expect("p0 p1 p2 p3")
		edit("", new(corev1.ServiceTrafficDistributionPreferSameNode))
		expect("p0:n1/east p1:n2/west p2:n2/west p3:n2/west")
		edit("", new(corev1.ServiceTrafficDistributionPreferSameZone))
		expect("p0:east p1:west p2:west p3:west")
		edit("Auto", nil)
		expect("p0:east p1:east p2:west p3:west")

		// A node that has not said where it is: nobody knows what is fair.
		if _, err := client.Nodes.Create(t.Context(), b.server, nodeIn("n3", "")); err != nil {
			t.Fatal(err)
		}
		expect("p0 p1 p2 p3")
		if err := client.Nodes.Delete(t.Context(), b.server, "", "n3", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("p0:east p1:east p2:west p3:west")
		edit("Disabled", nil)
		expect("p0 p1 p2 p3")

		// Pods of a node that is gone serve nobody, until it is back.
		if err := client.Nodes.Delete(t.Context(), b.server, "", "n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("p1 p2 p3")
		if _, err := client.Nodes.Create(t.Context(), b.server, nodeIn("n1", "east")); err != nil {
			t.Fatal(err)
		}
		expect("p0 p1 p2 p3")

		want := []string{
			"Normal TopologyAwareHintsEnabled Topology Aware Hints has been enabled, addressType: IPv4 (endpoint-slice-controller)",
			"Warning FailedToUpdateEndpointSlices Error updating Endpoint Slices for Service default/web: skipping Pod p0 for Service default/web: Node n1 Not Found (endpoint-slice-controller)",
			"Warning TopologyAwareHintsDisabled Insufficient Node information: allocatable CPU or zone not specified on one or more nodes, addressType: IPv4 (endpoint-slice-controller)",
			"Warning TopologyAwareHintsDisabled Topology Aware Hints has been disabled, addressType: IPv4 (endpoint-slice-controller)",
		}
		if got := b.told(); !slices.Equal(got, want) {
			t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
