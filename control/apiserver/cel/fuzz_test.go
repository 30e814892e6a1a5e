package cel_test

import (
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/cel"
	"github.com/sampan-dev/sampan/internal/frugal"
)

// mistakes is what a text may cost beside its length, as bytes of it: the parser tells
// up to a hundred mistakes, each with the line that it is in.
const mistakes = 64 << 10

// FuzzExpression: whatever somebody writes as an expression either does not compile
// or runs within its budget.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		"", "true", "object.metadata.name == 'p'", "oldObject == null", "params.x",
		"request.userInfo.groups.exists(g, g == 'system:masters')", "namespaceObject.metadata.labels['a'] == 'b'",
		"authorizer.group('').resource('pods').check('get').allowed()", "has(object.spec.x)", "object.spec.containers[99]",
		"lists.range(100000).all(x, lists.range(100000).all(y, x >= y))", "'a'.matches('(a*)*b')", "[1, 'a']", "1/0 == 1",
		"Object{spec: Object.spec{a: 1}}", "[JSONPatch{op: 'add', path: '/', value: object}]", "((((((((((((((((", "\x00", "variables.x",
	} {
		f.Add(seed)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}}
	f.Fuzz(func(t *testing.T, text string) {
		frugal.Run(t, len(text)+mistakes, func() {
			scope := cel.NewScope(false)
			e := scope.Compile(text, cel.Names{Params: true, Authorizer: true, Patches: true}, false, cel.Any)
			if e.Err != nil {
				return
			}
			run := scope.Start(t.Context(), cel.Input{Object: pod, Params: pod, Request: &admissionv1.AdmissionRequest{}}, cel.Budget)
			_, _, fatal := run.Evaluate(e)
			if fatal == nil && (run.Left < 0 || run.Left > cel.Budget) {
				t.Errorf("%q left %d of %d", text, run.Left, cel.Budget)
			}
		})
	})
}
