package resource

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/target"
)

// TestForbidden: events of controllers show this message, by which people look for the
// quota that keeps their pods away.
func TestForbidden(t *testing.T) {
	pods := target.Of(corev1.SchemeGroupVersion.WithResource("pods"), "x")
	for _, c := range []struct {
		about string
		at    target.Target
		obj   runtime.Object
		want  string
	}{
		{"a name in the URL", pods.Object("a"), &corev1.Pod{}, `pods "a" is forbidden: no`},
		{"a name in the body", pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "b", GenerateName: "g-"}}, `pods "b" is forbidden: no`},
		{"a name to come", pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "g-"}}, `pods "g-" is forbidden: no`},
		{"all of them", pods, nil, `pods "Unknown" is forbidden: no`},
	} {
		a := &Attributes{Target: c.at, Object: c.obj}
		if got := a.Forbidden(errors.New("no")).Error(); got != c.want {
			t.Errorf("%s: %s, want %s", c.about, got, c.want)
		}
	}
}
