package sim_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

func controllerOf(name string, replicas int32) *corev1.ReplicationController {
	labels := map[string]string{"name": name}
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ReplicationControllerSpec{
			Replicas: &replicas, Selector: labels,
			Template: &corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
			},
		},
	}
}

// A replication controller adopts a pod that matches, releases one that no
// longer does, and says so when it cannot make what it wants.
func TestReplicationController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		orphan := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orphan", Labels: map[string]string{"name": "rc"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		if _, err := client.Pods.Create(ctx, p.admin, orphan); err != nil {
			t.Fatal(err)
		}
		p.settle() // a controller that has not seen it yet makes a pod of its own
		rc, err := client.ReplicationControllers.Create(ctx, p.admin, controllerOf("rc", 1))
		if err != nil {
			t.Fatal(err)
		}
		p.settle()
		pods := p.list("default", "name=rc")
		if len(pods) != 1 || pods[0].Name != "orphan" || !metav1.IsControlledBy(pods[0], rc) {
			t.Fatalf("pods %v, want the adopted orphan alone", pods)
		}
		released := pods[0].DeepCopy()
		released.Labels = map[string]string{"name": "other"}
		if _, err := client.Pods.Update(ctx, p.admin, released); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.ready("default")
		if released, err = client.Pods.Get(ctx, p.admin, "default", "orphan"); err != nil || len(released.OwnerReferences) != 0 {
			t.Errorf("released pod: %v, owners %v", err, released.OwnerReferences)
		}
		if rc, err = client.ReplicationControllers.Get(ctx, p.admin, "default", "rc"); err != nil ||
			rc.Status.Replicas != 1 || rc.Status.ReadyReplicas != 1 || rc.Status.AvailableReplicas != 1 || rc.Status.ObservedGeneration != rc.Generation {
			t.Errorf("%v, status %+v", err, rc.Status)
		}
	})
}

// What admission refuses is a condition, until it is let through.
func TestReplicaFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		made := controllerOf("rc", 2)
		made.Spec.Template.Spec.ServiceAccountName = "late"
		if _, err := client.ReplicationControllers.Create(ctx, p.admin, made); err != nil {
			t.Fatal(err)
		}
		p.settle()
		rc, err := client.ReplicationControllers.Get(ctx, p.admin, "default", "rc")
		if err != nil || len(rc.Status.Conditions) != 1 || rc.Status.Conditions[0].Type != corev1.ReplicationControllerReplicaFailure ||
			rc.Status.Conditions[0].Reason != "FailedCreate" {
			t.Fatalf("%v, conditions %+v", err, rc.Status.Conditions)
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "late"}}
		if _, err := client.ServiceAccounts.Create(ctx, p.admin, account); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the retry comes with a delay
		p.settle()
		rc, err = client.ReplicationControllers.Get(ctx, p.admin, "default", "rc")
		if err != nil || len(rc.Status.Conditions) != 0 || rc.Status.Replicas != 2 {
			t.Errorf("%v, status %+v, want two pods and no condition", err, rc.Status)
		}
	})
}
