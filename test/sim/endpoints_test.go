package sim_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
)

// Endpoints say when what they show came about; those that somebody made go with their
// service, but not before there is one.
func TestEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		if _, err := client.Deployments.Create(ctx, p.admin, web("default", "a")); err != nil {
			t.Fatal(err)
		}
		made := time.Now().UTC().Truncate(time.Second).Format(time.RFC3339Nano)
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}}}
		if _, err := client.Services.Create(ctx, p.admin, svc); err != nil {
			t.Fatal(err)
		}
		p.settle()
		expect := func(addresses int, trigger string) {
			t.Helper()
			e, err := client.Endpoints.Get(ctx, p.admin, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, s := range e.Subsets {
				n += len(s.Addresses)
			}
			if got := e.Annotations[corev1.EndpointsLastChangeTriggerTime]; n != addresses || got != trigger {
				t.Errorf("%d addresses since %q, want %d since %q", n, got, addresses, trigger)
			}
		}
		expect(0, made)
		time.Sleep(time.Minute)
		ready := time.Now().UTC().Truncate(time.Second).Format(time.RFC3339Nano)
		p.ready("default")
		expect(3, ready)
		time.Sleep(time.Minute)
		if err := client.Pods.Delete(ctx, p.admin, "default", p.list("default", "app=web")[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		expect(2, "") // nobody says when a pod went

		byHand := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "outside"},
			Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.7"}}, Ports: []corev1.EndpointPort{{Port: 80}}}}}
		if _, err := client.Endpoints.Create(ctx, p.admin, byHand); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.Endpoints.Get(ctx, p.admin, "default", "outside"); err != nil {
			t.Errorf("before its service: %v", err)
		}
		svc = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "outside"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := client.Services.Create(ctx, p.admin, svc); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if err := client.Services.Delete(ctx, p.admin, "default", "outside", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.Endpoints.Get(ctx, p.admin, "default", "outside"); !apierrors.IsNotFound(err) {
			t.Errorf("after its service: %v", err)
		}
	})
}
