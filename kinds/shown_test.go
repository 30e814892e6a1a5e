package kinds

import (
	"encoding/json"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestShown(t *testing.T) {
	port := intstr.FromString("http")
	name := "n"
	for _, c := range []struct {
		value any
		want  string
	}{
		{nil, `null`},
		{(*int32)(nil), `null`},
		{[]string{"a", "b"}, `["a","b"]`},
		{[]byte("ab"), `"YWI="`},
		{map[string]string{"b": "<", "a": "1"}, `{"a":"1","b":"\u003c"}`},
		{corev1.PodResourceClaim{Name: "c", ResourceClaimName: &name}, `{"Name":"c","ResourceClaimName":"n","ResourceClaimTemplateName":null}`},
		{corev1.Taint{Key: "k", TimeAdded: nil}, `{"Key":"k","Value":"","Effect":"","TimeAdded":null}`},
		// A type of apimachinery has its own names; what is embedded lies flat.
		{metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, `{"matchLabels":{"a":"b"}}`},
		{corev1.ResourceList{"cpu": resource.MustParse("1500m")}, `{"cpu":"1500m"}`},
		{corev1.TCPSocketAction{Port: port}, `{"Port":"http","Host":""}`},
		{corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}, PeriodSeconds: 1},
			`{"Exec":{"Command":null},"HTTPGet":null,"TCPSocket":null,"GRPC":null,"InitialDelaySeconds":0,"TimeoutSeconds":0,` +
				`"PeriodSeconds":1,"SuccessThreshold":0,"FailureThreshold":0,"TerminationGracePeriodSeconds":null}`},
		{appsv1.ControllerRevision{TypeMeta: metav1.TypeMeta{Kind: "X"}, ObjectMeta: metav1.ObjectMeta{Name: "m"}}, `{"name":"m","Data":null,"Revision":0}`},
		{struct{ metav1.ObjectMeta }{metav1.ObjectMeta{Labels: map[string]string{"l": "v"}}}, `{"labels":{"l":"v"}}`},
		{struct{}{}, `{}`},
	} {
		got, err := json.Marshal(Shown{c.value})
		if err != nil {
			t.Fatalf("%#v: %v", c.value, err)
		}
		if string(got) != c.want {
			t.Errorf("%#v is shown as\n%s, want\n%s", c.value, got, c.want)
		}
	}
}
