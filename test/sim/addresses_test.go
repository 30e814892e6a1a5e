package sim_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// at gives a node an address.
func (p *plane) at(node, address string) {
	p.Helper()
	p.settle() // controllers write to a node that has become ready, too
	n, err := client.Nodes.Get(p.Context(), p.admin, "", node)
	if err != nil {
		p.Fatal(err)
	}
	n = n.DeepCopy()
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
	if _, err := client.Nodes.UpdateStatus(p.Context(), p.admin, n); err != nil {
		p.Fatal(err)
	}
}

func (p *plane) balanced(name string, port int32) {
	p.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: port}}}}
	if _, err := client.Services.Create(p.Context(), p.admin, s); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func (p *plane) expectBalanced(name, want string) {
	p.Helper()
	p.settle()
	s, err := client.Services.Get(p.Context(), p.admin, "default", name)
	if err != nil {
		p.Fatal(err)
	}
	var got []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		got = append(got, in.IP)
	}
	if text := strings.Join(got, " "); text != want {
		p.Errorf("service %s at %q, want %q", name, text, want)
	}
}

// A service of type LoadBalancer is at the nodes' addresses; a port has one owner.
func TestServicesAtTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		for name, address := range map[string]string{"n1": "192.0.2.1", "n2": "192.0.2.2"} {
			p.node(name)
			p.at(name, address)
			go p.beat(ctx, name)
		}
		p.balanced("a", 80)
		p.expectBalanced("a", "192.0.2.1 192.0.2.2")
		p.balanced("b", 80)
		p.expectBalanced("b", "")
		if r := p.reasons("b"); !slices.Contains(r, "SyncLoadBalancerFailed") {
			t.Errorf("events %v", r)
		}
		p.changeNode("n2", func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} })
		p.expectBalanced("a", "192.0.2.1")
		if err := client.Services.Delete(ctx, p.admin, "default", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if s, err := client.Services.Get(ctx, p.admin, "default", "a"); err == nil {
			t.Errorf("the service stays with finalizers %v", s.Finalizers)
		}
		p.expectBalanced("b", "192.0.2.1")
		s, err := client.Services.Get(ctx, p.admin, "default", "b")
		if err != nil {
			t.Fatal(err)
		}
		s = s.DeepCopy()
		s.Spec.Type = corev1.ServiceTypeClusterIP
		s.Spec.Ports[0].NodePort = 0
		if _, err := client.Services.Update(ctx, p.admin, s); err != nil {
			t.Fatal(err)
		}
		p.expectBalanced("b", "")
	})
}

// Each node gets a range of its own for its pods, and its annotation.
func TestNodesGetRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		seen := map[string]bool{}
		for _, name := range []string{"n1", "n2", "n3"} {
			p.node(name)
			n, err := client.Nodes.Get(t.Context(), p.admin, "", name)
			if err != nil || len(n.Spec.PodCIDRs) != 1 || n.Spec.PodCIDR != n.Spec.PodCIDRs[0] || seen[n.Spec.PodCIDR] || !strings.HasPrefix(n.Spec.PodCIDR, "10.42.") {
				t.Errorf("%v, ranges %v", err, n.Spec.PodCIDRs)
			}
			seen[n.Spec.PodCIDR] = true
			if n.Annotations[corev1.ObjectTTLAnnotationKey] != "0" {
				t.Errorf("annotations %v", n.Annotations)
			}
		}
	})
}

// A pod's ephemeral volume is a claim that goes with the pod; a claim of that name
// that is somebody else's is not touched.
func TestEphemeralVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		none := ""
		p.claim("b-data", "1Gi", &none)
		for _, name := range []string{"a", "b"} {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "c", Image: "i"}},
				Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
					VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
						ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"of": name}},
						Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &none,
							Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}},
					}}}}},
			}}
			if _, err := client.Pods.Create(ctx, p.admin, pod); err != nil {
				t.Fatal(err)
			}
		}
		p.settle()
		made, err := client.PersistentVolumeClaims.Get(ctx, p.admin, "default", "a-data")
		if err != nil || made.Labels["of"] != "a" || metav1.GetControllerOf(made) == nil {
			t.Fatalf("%v, %+v", err, made)
		}
		if r := p.reasons("b"); !slices.Contains(r, "FailedBinding") {
			t.Errorf("events %v", r)
		}
		now := int64(0)
		if err := client.Pods.Delete(ctx, p.admin, "default", "a", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.PersistentVolumeClaims.Get(ctx, p.admin, "default", "a-data"); err == nil {
			t.Error("the claim outlives its pod")
		}
	})
}
