package sim_test

import (
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

func (p *plane) list(namespace, selector string) []*corev1.Pod {
	p.Helper()
	pods, _, err := client.Pods.List(p.Context(), p.admin, namespace, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		p.Fatal(err)
	}
	return pods
}

// ready makes every pod run and be ready, without a node.
func (p *plane) ready(namespace string) {
	p.Helper()
	for i, pod := range p.list(namespace, "") {
		if pod.Status.Phase == corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.PodIP = "10.1.0." + string(rune('1'+i))
		pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
		if _, err := client.Pods.UpdateStatus(p.Context(), p.admin, pod); err != nil {
			p.Fatal(err)
		}
	}
	p.settle()
}

func web(namespace, image string) *appsv1.Deployment {
	three, labels := int32(3), map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &three, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
			},
		},
	}
}

// A deployment's whole life through the real API server, each controller with
// its own user and upstream's roles.
func TestDeploymentLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		if _, err := client.Namespaces.Create(ctx, p.admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.ServiceAccounts.Get(ctx, p.admin, "shop", "default"); err != nil {
			t.Fatal(err)
		}
		if _, err := client.ConfigMaps.Get(ctx, p.admin, "shop", "kube-root-ca.crt"); err != nil {
			t.Error(err)
		}
		if _, err := client.Deployments.Create(ctx, p.admin, web("shop", "a")); err != nil {
			t.Fatal(err)
		}
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			// The pods are on no node, and published all the same.
			Spec: corev1.ServiceSpec{PublishNotReadyAddresses: true, Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
		}
		if _, err := client.Services.Create(ctx, p.admin, svc); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if got := len(p.list("shop", "app=web")); got != 3 {
			t.Fatalf("%d pods, want 3", got)
		}
		p.ready("shop")
		p.expectDeployment(3, "NewReplicaSetAvailable", "1")

		slices, _, err := client.EndpointSlices.List(ctx, p.admin, "shop", metav1.ListOptions{})
		if err != nil || len(slices) != 1 || len(slices[0].Endpoints) != 3 {
			t.Errorf("%v, slices %v; want one with 3 endpoints", err, slices)
		}
		if e, err := client.Endpoints.Get(ctx, p.admin, "shop", "web"); err != nil || len(e.Subsets) != 1 || len(e.Subsets[0].Addresses) != 3 {
			t.Errorf("%v, endpoints %v; want 3 addresses", err, e)
		}
		p.rollOut()
		p.endNamespace()
	})
}

func (p *plane) expectDeployment(available int32, reason, revision string) {
	p.Helper()
	d, err := client.Deployments.Get(p.Context(), p.admin, "shop", "web")
	if err != nil {
		p.Fatal(err)
	}
	got := ""
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			got = c.Reason
		}
	}
	if d.Status.AvailableReplicas != available || got != reason || d.Annotations["deployment.kubernetes.io/revision"] != revision ||
		d.Status.ObservedGeneration != d.Generation {
		p.Errorf("deployment has %d available, %s, revision %q, observed %d of %d; want %d, %s, %q", d.Status.AvailableReplicas, got,
			d.Annotations["deployment.kubernetes.io/revision"], d.Status.ObservedGeneration, d.Generation, available, reason, revision)
	}
}

// rollOut changes the image and lets pods become ready until it is through.
func (p *plane) rollOut() {
	p.Helper()
	d, err := client.Deployments.Get(p.Context(), p.admin, "shop", "web")
	if err != nil {
		p.Fatal(err)
	}
	d = d.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Image = "b"
	if _, err := client.Deployments.Update(p.Context(), p.admin, d); err != nil {
		p.Fatal(err)
	}
	p.settle()
	for range 6 {
		p.ready("shop")
	}
	p.expectDeployment(3, "NewReplicaSetAvailable", "2")
	for _, pod := range p.list("shop", "app=web") {
		if pod.Spec.Containers[0].Image != "b" {
			p.Errorf("pod %s still has image %q", pod.Name, pod.Spec.Containers[0].Image)
		}
	}
	events, _, err := client.Events.List(p.Context(), p.admin, "shop", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range events {
		seen[e.InvolvedObject.Kind+" "+e.Reason]++
	}
	if seen["Deployment ScalingReplicaSet"] == 0 || seen["ReplicaSet SuccessfulCreate"] < 6 || seen["ReplicaSet SuccessfulDelete"] < 3 {
		p.Errorf("events %v", seen)
	}
}

// endNamespace deletes the namespace and expects nothing of it to be left.
func (p *plane) endNamespace() {
	p.Helper()
	if err := client.Namespaces.Delete(p.Context(), p.admin, "", "shop", metav1.DeleteOptions{}); err != nil {
		p.Fatal(err)
	}
	p.settle()
	if _, err := client.Namespaces.Get(p.Context(), p.admin, "", "shop"); !apierrors.IsNotFound(err) {
		ns, _ := client.Namespaces.Get(p.Context(), p.admin, "", "shop")
		p.Errorf("namespace: %v, %v", err, ns)
	}
	if pods := p.list("shop", ""); len(pods) > 0 {
		p.Errorf("%d pods are left", len(pods))
	}
}

// Deleting a deployment takes its sets and pods along.
func TestCascade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan} {
			p := start(t)
			if _, err := client.Deployments.Create(t.Context(), p.admin, web("default", "a")); err != nil {
				t.Fatal(err)
			}
			p.settle()
			if err := client.Deployments.Delete(t.Context(), p.admin, "default", "web", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
				t.Fatal(err)
			}
			p.settle()
			want := map[metav1.DeletionPropagation]int{metav1.DeletePropagationOrphan: 3}[policy]
			if got := len(p.list("default", "app=web")); got != want {
				t.Errorf("%s: %d pods are left, want %d", policy, got, want)
			}
			if _, err := client.Deployments.Get(t.Context(), p.admin, "default", "web"); !apierrors.IsNotFound(err) {
				t.Errorf("%s: deployment: %v", policy, err)
			}
		}
	})
}
