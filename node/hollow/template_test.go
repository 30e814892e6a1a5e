package hollow

import (
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// made is a pod as it is decoded: nothing of it is another's.
func made(name, owner, image string) *corev1.Pod {
	yes, requests := true, func() corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": owner},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: &yes}}},
		Spec: corev1.PodSpec{NodeName: "on-" + name, Containers: []corev1.Container{{Name: "c", Image: image,
			Resources: corev1.ResourceRequirements{Requests: requests()}}}},
		Status: corev1.PodStatus{PodIP: name, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", Image: image,
			AllocatedResources: requests(), Resources: &corev1.ResourceRequirements{Requests: requests()}}}},
	}
}

// Pods of one owner that are alike share what they have in common, and are the same as
// before in every other way; those that differ share nothing of what differs.
func TestTemplates(t *testing.T) {
	alike := newTemplates()
	shared := func(p *corev1.Pod) *corev1.Pod {
		before := p.DeepCopy()
		own := *p
		alike.share(&own)
		if !equality.Semantic.DeepEqual(p, before) {
			t.Errorf("%s was changed", p.Name)
		}
		if !equality.Semantic.DeepEqual(&own, before) {
			t.Errorf("%s is another pod now: %+v", p.Name, own)
		}
		return &own
	}
	same := func(a, b *corev1.Pod) string {
		return fmt.Sprint(&a.Spec.Containers[0] == &b.Spec.Containers[0], reflect.ValueOf(a.Labels).Pointer() == reflect.ValueOf(b.Labels).Pointer(),
			a.Status.ContainerStatuses[0].Resources == b.Status.ContainerStatuses[0].Resources)
	}
	first, second := shared(made("a", "one", "v1")), shared(made("b", "one", "v1"))
	if got := same(first, shared(made("a", "one", "v1"))); got != "true true true" {
		t.Errorf("versions of one pod share containers, labels, resources: %s", got)
	}
	if got := same(first, second); got != "true true true" {
		t.Errorf("pods of one owner share containers, labels, resources: %s", got)
	}
	if got := same(first, shared(made("c", "one", "v2"))); got != "false true false" {
		t.Errorf("with another image: %s", got)
	}
	if got := same(first, shared(made("d", "two", "v1"))); got != "false false false" {
		t.Errorf("of another owner: %s", got)
	}
	pod := made("e", "", "v1")
	for i := range maxTemplates + 1 {
		alike.of(types.UID(fmt.Sprint(i)), pod)
	}
	if n := len(alike.known); n > maxTemplates {
		t.Errorf("%d templates are known, at most %d should be", n, maxTemplates)
	}
}
