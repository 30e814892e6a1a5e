package resource

import (
	"maps"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/kinds"
)

// A pod that is bound is, to the last bit, what decoding its stored form gives, so that
// the cache may be given it unseen; and the pod that it was made of, whose insides it
// shares, is as it was.
func TestBoundIsSettled(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(givenKinds(), func(k *kinds.Kind) bool { return k.Storage == "pods" })
	if at < 0 {
		t.Fatal("the cache is given no pods")
	}
	kind := givenKinds()[at]
	x := &settling{codec: newCodec(scheme.Scheme())}
	full, ok := example(t, filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD"), kind)
	if !ok {
		t.Fatal("no example of a pod")
	}
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}
	words := map[string]string{"of": "the binding"}
	for what, b := range map[string]corev1.Binding{
		"plain":     {},
		"empty":     {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}, Annotations: map[string]string{}}},
		"with more": {ObjectMeta: metav1.ObjectMeta{Labels: words, Annotations: maps.Clone(words)}},
	} {
		for _, obj := range []kinds.Object{full, bare} {
			free := obj.DeepCopyObject().(*corev1.Pod)
			free.DeletionTimestamp, free.Spec.NodeName, free.Spec.SchedulingGates = nil, "", nil
			pod := x.again(t, kind, free).(*corev1.Pod)
			before := pod.DeepCopy()
			b.Target.Name = "n1"
			next := bindable(pod)
			if err := assign(next, &b, settledTime(metav1.NewTime(time.Now()))); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(pod, before) {
				t.Errorf("%s: the pod was\n%.2000v\nand is\n%.2000v", what, before, pod)
			}
			if decoded := x.again(t, kind, next); !reflect.DeepEqual(next, decoded) {
				t.Errorf("%s: bound\n%.2000v\ndecoded\n%.2000v", what, next, decoded)
			}
		}
	}
}
