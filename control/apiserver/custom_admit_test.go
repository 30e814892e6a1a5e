package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// admitted counts what the admission webhook was asked, by path.
type admitted struct{ calls atomic.Int64 }

// admitBoats is an admission webhook whose path says what it does:
//
//	/admit/seen    notes in an annotation what it was shown, and how often
//	/admit/paint   sets spec.color, spec.unknown, and takes spec.sails away
//	/admit/hull    sets spec.hull if it is not there
//	/admit/crew    sets status.crew
//	/admit/scale   never lets more than five replicas be
//	/admit/warn    allows with a warning
//	/admit/deny    refuses with 418
//	/admit/slow    never answers
func (a *admitted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q := review.Request
	answer := &admissionv1.AdmissionResponse{UID: q.UID, Allowed: true}
	obj := &unstructured.Unstructured{}
	_ = obj.UnmarshalJSON(q.Object.Raw) // none for deletions
	set := func(patch string) {
		answer.Patch, answer.PatchType = []byte(patch), new(admissionv1.PatchTypeJSONPatch)
	}
	switch strings.TrimPrefix(r.URL.Path, "/admit/") {
	case "seen":
		note := fmt.Sprintf("%s %s/%s.%s/%s as %s %s dry=%v", q.Operation, q.Resource.Version, q.Resource.Resource, q.Kind.Version, q.SubResource,
			q.RequestKind.Version, obj.GetAPIVersion(), *q.DryRun)
		set(fmt.Sprintf(`[{"op":"add","path":"/metadata/annotations","value":{"seen":%q}}]`, note))
	case "paint":
		set(`[{"op":"add","path":"/spec/color","value":"blue"},{"op":"add","path":"/spec/unknown","value":1},{"op":"remove","path":"/spec/sails"}]`)
	case "hull":
		if _, has, _ := unstructured.NestedString(obj.Object, "spec", "hull"); !has {
			color, _, _ := unstructured.NestedString(obj.Object, "spec", "color")
			set(fmt.Sprintf(`[{"op":"add","path":"/spec/hull","value":"%s steel"}]`, color))
		}
	case "crew":
		set(`[{"op":"add","path":"/status/crew","value":7}]`)
	case "scale":
		if n, _, _ := unstructured.NestedInt64(obj.Object, "spec", "replicas"); n > 5 {
			set(`[{"op":"replace","path":"/spec/replicas","value":5}]`)
		}
	case "warn":
		answer.Warnings = []string{"mind the gap"}
	case "deny":
		answer.Allowed, answer.Result = false, &metav1.Status{Code: http.StatusTeapot, Message: "no tea on board", Reason: "Tea"}
	case "slow":
		<-r.Context().Done()
		return
	}
	a.calls.Add(1)
	review.Request, review.Response = nil, answer
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}
