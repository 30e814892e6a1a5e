package cli

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/internal/target"
)

// unwilling is a server that has no more pods.
type unwilling struct{ client.Transport }

func (unwilling) Create(_ context.Context, at target.Target, _ runtime.Object, _ metav1.CreateOptions) (runtime.Object, error) {
	return nil, apierrors.NewForbidden(at.Resource.GroupResource(), at.Name, nil)
}

// What has ended stays when the server would not take what is to come in its place.
func TestStartRefused(t *testing.T) {
	memory := clienttest.NewMemory()
	memory.Seed(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "1", Labels: map[string]string{runLabel: "p"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "p", Image: "i"}}}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}})
	s := &server{Transport: unwilling{memory}, namespace: "default"}
	old, err := s.own(t.Context(), "default", "p")
	if err != nil {
		t.Fatal(err)
	}
	again := &renewal{server: s, fresh: true}
	if _, err := again.begin(t.Context(), old); !apierrors.IsForbidden(err) {
		t.Errorf("the error is %v", err)
	}
	if _, err := s.own(t.Context(), "default", "p"); err != nil {
		t.Errorf("it is lost: %v", err)
	}
}

// Another pod that has the name by now is not removed in the place of the one that was meant.
func TestRemoveAnother(t *testing.T) {
	memory := clienttest.NewMemory()
	s := &server{Transport: memory, namespace: "default"}
	now := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "2", Labels: map[string]string{runLabel: "p"}},
		Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	memory.Seed(now)
	was := now.DeepCopy()
	was.UID = "1"
	for _, force := range []bool{false, true} {
		if err := s.rm(t.Context(), was, force); !apierrors.IsConflict(err) {
			t.Errorf("force %v: the error is %v", force, err)
		}
		if _, err := s.own(t.Context(), "default", "p"); err != nil {
			t.Errorf("force %v: the other is gone: %v", force, err)
		}
	}
}
