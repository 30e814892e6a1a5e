package sim_test

import (
	"fmt"
	"slices"
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

// An annotation asks for a rollback, as old clients do: the template of that revision
// comes back, and with it its annotations. The revision goes with the status: the
// generation counts only what people change.
func TestDeploymentRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		d := web("default", "a")
		d.Annotations = map[string]string{"kubernetes.io/change-cause": "a"}
		if _, err := client.Deployments.Create(ctx, p.admin, d); err != nil {
			t.Fatal(err)
		}
		change := func(edit func(*appsv1.Deployment)) {
			t.Helper()
			d, err := client.Deployments.Get(ctx, p.admin, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			d = d.DeepCopy()
			edit(d)
			if _, err := client.Deployments.Update(ctx, p.admin, d); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				p.ready("default")
			}
		}
		expect := func(want string) {
			t.Helper()
			d, err := client.Deployments.Get(ctx, p.admin, "default", "web")
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s cause %s revision %s generation %d of %d, asks %q", d.Spec.Template.Spec.Containers[0].Image,
				d.Annotations["kubernetes.io/change-cause"], d.Annotations["deployment.kubernetes.io/revision"],
				d.Status.ObservedGeneration, d.Generation, d.Annotations[appsv1.DeprecatedRollbackTo])
			if got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		}
		for range 4 {
			p.ready("default")
		}
		p.settle()
		expect(`a cause a revision 1 generation 1 of 1, asks ""`)
		change(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = "b"
			d.Annotations["kubernetes.io/change-cause"] = "b"
		})
		expect(`b cause b revision 2 generation 2 of 2, asks ""`)
		change(func(d *appsv1.Deployment) { d.Annotations[appsv1.DeprecatedRollbackTo] = "0" })
		expect(`a cause a revision 3 generation 4 of 4, asks ""`)
		change(func(d *appsv1.Deployment) { d.Annotations[appsv1.DeprecatedRollbackTo] = "7" })
		expect(`a cause a revision 3 generation 6 of 6, asks ""`)
		p.expectEvents("web", "DeploymentRollback: Rolled back deployment \"web\" to revision 1",
			"DeploymentRollbackRevisionNotFound: Unable to find the revision to rollback to.")
	})
}

// expectEvents looks for events about the object of a name, as "reason: message".
func (p *plane) expectEvents(name string, want ...string) {
	p.Helper()
	events, _, err := client.Events.List(p.Context(), p.admin, "default", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	var have []string
	for _, e := range events {
		if e.InvolvedObject.Name == name {
			have = append(have, e.Reason+": "+e.Message)
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			p.Errorf("no event %q in %q", w, have)
		}
	}
}
