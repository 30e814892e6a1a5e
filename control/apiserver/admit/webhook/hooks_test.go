package webhook_test

import (
	"encoding/json"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// refusals are the ways in which webhooks of the transcripts say no.
var refusals = map[string]*metav1.Status{
	"deny":   {Message: "the answer is no", Reason: "Because", Code: 418},
	"reason": {Reason: "OnlyAReason"},
	"silent": nil,
	"ok":     {Status: metav1.StatusSuccess, Code: 200, Message: "success, or so"},
}

// labelPatch adds a label to an object.
func labelPatch(object []byte, key, value string) []byte {
	var u unstructured.Unstructured
	_ = json.Unmarshal(object, &u.Object)
	if len(u.GetLabels()) == 0 {
		return fmt.Appendf(nil, `[{"op":"add","path":"/metadata/labels","value":{%q:%q}}]`, key, value)
	}
	return fmt.Appendf(nil, `[{"op":"add","path":"/metadata/labels/%s","value":%q}]`, key, value)
}

// describe is a webhook's view of a request, in one line.
func describe(path string, review *admissionv1.AdmissionReview) string {
	q := review.Request
	gvk := func(k metav1.GroupVersionKind) string { return strings.Trim(k.Group+"/"+k.Version+"/"+k.Kind, "/") }
	line := fmt.Sprintf("%s %s %s %s", path, review.APIVersion, q.Operation, gvk(q.Kind))
	if *q.RequestKind != q.Kind {
		line += " (as " + gvk(*q.RequestKind) + ")"
	}
	line += fmt.Sprintf(" %s", q.Resource.Resource)
	if q.SubResource != "" {
		line += "/" + q.SubResource
	}
	line += fmt.Sprintf(" %q in %q by %s", q.Name, q.Namespace, q.UserInfo.Username)
	if *q.DryRun {
		line += " dry"
	}
	for _, part := range []struct {
		name string
		raw  []byte
	}{{"object", q.Object.Raw}, {"old", q.OldObject.Raw}, {"options", q.Options.Raw}} {
		var u unstructured.Unstructured
		if string(part.raw) == "null" || json.Unmarshal(part.raw, &u.Object) != nil || u.Object == nil {
			continue
		}
		line += " " + part.name + "=" + u.GetKind()
		if labels := u.GetLabels(); len(labels) > 0 {
			line += fmt.Sprint(labels)
		}
	}
	return line
}
