package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An event is encoded just as encoding/json would.
func TestEncode(t *testing.T) {
	full := Event{
		Kind: "Event", APIVersion: apiVersion, Level: RequestResponse, AuditID: "id", Stage: ResponseComplete, RequestURI: "/api/v1/pods?watch=1&x=<>",
		Verb: "get", SourceIPs: []string{"10.0.0.1", "::1"}, UserAgent: "kubectl/v1 (\"quoted\"\\ \x00\u2028é\xff)",
		User:           authenticationv1.UserInfo{Username: "jane", UID: "1", Groups: []string{"a", "b&c"}, Extra: map[string]authenticationv1.ExtraValue{"z": {"1", "2"}, "a/b": {"\n"}, "none": nil, "empty": {}}},
		Impersonated:   &authenticationv1.UserInfo{Username: "system:admin"},
		Authentication: &Authentication{ImpersonationConstraint: "impersonate:user-info"},
		Object:         &Object{Resource: "pods", Namespace: "default", Name: "x", APIGroup: "g", APIVersion: "v1", Subresource: "status"},
		ResponseStatus: &metav1.Status{Code: 404, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Message: "pods \"x\" not found"},
		RequestObject:  json.RawMessage(`{"a":1}`), ResponseObject: json.RawMessage(`{"b":"<"}`),
		Received:    metav1.NewMicroTime(time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.FixedZone("", 3600))),
		Reached:     metav1.NewMicroTime(time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)),
		Annotations: map[string]string{"b": "2", "a": "why \"not\"", "": "nameless"},
	}
	for _, v := range []any{full, *full.Object, full.User} { // encode forgets what nobody tells it of
		for i := range reflect.ValueOf(v).NumField() {
			if reflect.ValueOf(v).Field(i).IsZero() {
				t.Errorf("%T: this test does not set field %s", v, reflect.TypeOf(v).Field(i).Name)
			}
		}
	}
	plain := Event{Kind: "Event", APIVersion: apiVersion, Level: Metadata, Verb: "list", ResponseStatus: &metav1.Status{Code: 200}, Object: &Object{}}
	early := Event{Received: metav1.NewMicroTime(time.Date(7, 1, 2, 0, 0, 0, 1999, time.UTC)), Reached: metav1.NewMicroTime(time.Date(12345, 12, 31, 23, 59, 59, 999999999, time.UTC))}
	for name, e := range map[string]Event{"full": full, "plain": plain, "empty": {}, "no code": {ResponseStatus: &metav1.Status{}}, "early and late": early} {
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := Event{Kind: "Event", APIVersion: apiVersion, Level: Metadata, AuditID: "cc0ac6d2-1111-4222-8333-1234567890ab", Stage: ResponseComplete, RequestURI: "/api/v1/namespaces/default/pods/x",
		Verb: "get", User: authenticationv1.UserInfo{Username: "jane", Groups: []string{"a", "b"}}, SourceIPs: []string{"10.0.0.1"}, UserAgent: "kubectl",
		Object: &Object{Resource: "pods", Namespace: "default", Name: "x", APIVersion: "v1"}, ResponseStatus: &metav1.Status{Code: 200},
		Received: metav1.NowMicro(), Reached: metav1.NowMicro(), Annotations: map[string]string{"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.encode(nil); err != nil {
			b.Fatal(err)
		}
	}
}
