package sim_test

import (
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// A pod gets a claim of the template, made once; when the pod has ended, the
// claim is free of it, and goes.
func TestClaimsOfDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		name := "gpu"
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Spec: corev1.PodSpec{
			Containers:     []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "dev"}}}}},
			ResourceClaims: []corev1.PodResourceClaim{{Name: "dev", ResourceClaimTemplateName: &name}},
		}}
		if _, err := client.Pods.Create(ctx, p.admin, pod); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if r := p.reasons("a"); !slices.Contains(r, "FailedResourceClaimCreation") {
			t.Errorf("events %v", r)
		}
		template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		template.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpus"}}}
		if _, err := client.ResourceClaimTemplates.Create(ctx, p.admin, template); err != nil {
			t.Fatal(err)
		}
		p.settle()
		claims, _, err := client.ResourceClaims.List(ctx, p.admin, "default", metav1.ListOptions{})
		if err != nil || len(claims) != 1 || claims[0].Spec.Devices.Requests[0].Exactly.Count != 1 {
			t.Fatalf("%v, claims %+v", err, claims)
		}
		have, err := client.Pods.Get(ctx, p.admin, "default", "a")
		if err != nil || len(have.Status.ResourceClaimStatuses) != 1 || *have.Status.ResourceClaimStatuses[0].ResourceClaimName != claims[0].Name {
			t.Fatalf("%v, statuses %+v", err, have.Status.ResourceClaimStatuses)
		}
		c := claims[0].DeepCopy()
		c.Finalizers = []string{resourcev1.Finalizer}
		if c, err = client.ResourceClaims.Update(ctx, p.admin, c); err != nil {
			t.Fatal(err)
		}
		c = c.DeepCopy()
		c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
			Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: "gpu.example.com", Pool: "n1", Device: "d0"}}}}
		c.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "a", UID: have.UID}}
		if _, err = client.ResourceClaims.UpdateStatus(ctx, p.admin, c); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if c, err = client.ResourceClaims.Get(ctx, p.admin, "default", c.Name); err != nil || len(c.Status.ReservedFor) != 1 {
			t.Fatalf("%v, a claim in use: %+v", err, c.Status)
		}
		have = have.DeepCopy()
		have.ResourceVersion = ""
		have.Status.Phase = corev1.PodSucceeded
		if _, err := client.Pods.UpdateStatus(ctx, p.admin, have); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if c, err = client.ResourceClaims.Get(ctx, p.admin, "default", c.Name); err == nil {
			t.Errorf("the claim of a pod that has ended stays: %+v %v", c.Status, c.Finalizers)
		}
	})
}
