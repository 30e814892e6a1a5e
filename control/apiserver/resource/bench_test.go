package resource_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/target"
)

// The cost of the handler itself: in-process, over a store in memory.
func BenchmarkLocal(b *testing.B) {
	st := memory.New(memory.Config{})
	defer st.Close()
	s, err := resource.New(resource.Config{Kinds: rows(), Store: st, Authorizer: allowed{}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, at := s.Local(alice, "bench"), target.Of(podsOf, "a")
	if _, err := l.List(b.Context(), at, metav1.ListOptions{}); err != nil {
		b.Fatal(err)
	}
	made := 0
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			pod := benchPod(made)
			made++
			if _, err := l.Create(b.Context(), at, pod, metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	first := at.Object("p0")
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.Get(b.Context(), first, metav1.GetOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	round := 0
	b.Run("patch", func(b *testing.B) {
		for b.Loop() {
			round++
			data := fmt.Appendf(nil, `{"metadata":{"labels":{"round":"%d"}}}`, round)
			if _, err := l.Patch(b.Context(), first, types.MergePatchType, data, metav1.PatchOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("update-status", func(b *testing.B) {
		for b.Loop() {
			round++
			pod := benchPod(0)
			pod.Status.Message = fmt.Sprint(round)
			if _, err := l.Update(b.Context(), first.Sub("status"), pod, metav1.UpdateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchPod(n int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprintf("p%d", n), Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "busybox", Env: []corev1.EnvVar{{Name: "A", Value: "B"}},
		}}},
	}
}
