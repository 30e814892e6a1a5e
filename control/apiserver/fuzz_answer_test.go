package apiserver

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/frugal"
	"github.com/sampan-dev/sampan/internal/target"
)

// FuzzAnswer: whatever a webhook answers, in v1 or v1beta1, with a patch or without,
// the request is served or fails with a status, cheaply; and nothing is created that
// the webhook has not allowed.
func FuzzAnswer(f *testing.F) {
	for _, response := range []string{
		`{"uid":"UID","allowed":true}`, `{"uid":"UID","allowed":false,"status":{"code":418,"message":"no"}}`, `{"uid":"other","allowed":true}`,
		`{"uid":"UID","allowed":true,"patchType":"JSONPatch","patch":"W3sib3AiOiJhZGQiLCJwYXRoIjoiL2RhdGEiLCJ2YWx1ZSI6eyJhIjoiYiJ9fV0="}`,
		`{"uid":"UID","allowed":true,"patchType":"JSONPatch","patch":"W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL21ldGFkYXRhIn1d"}`,
		`{"uid":"UID","allowed":true,"patchType":"JSONPatch","patch":"W10="}`, `{"uid":"UID","allowed":true,"warnings":["w\n\u0000"],"auditAnnotations":{"a":"b"}}`, `null`,
	} {
		f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":` + response + `}`))
	}
	f.Add([]byte(strings.Repeat("[", 20_000)))
	var answer atomic.Pointer[[]byte]
	var allowed atomic.Bool
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if json.NewDecoder(r.Body).Decode(&review) != nil || review.Request == nil {
			return
		}
		text := bytes.ReplaceAll(*answer.Load(), []byte("UID"), []byte(review.Request.UID))
		var said admissionv1.AdmissionReview
		allowed.Store(json.Unmarshal(text, &said) == nil && said.Response != nil && said.Response.Allowed)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	}))
	f.Cleanup(hook.Close)
	a := aim(f)
	a.ask(f, hook)
	admin := a.as(f, "admin", "system:masters")
	post := func(t testing.TB) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, mapsPath+"?dryRun=All", strings.NewReader(`{"metadata":{"name":"a"}}`))
		r.TLS = admin
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, r)
		return w
	}
	none := []byte(`{}`)
	answer.Store(&none)
	for post(f).Code == http.StatusCreated { // until the webhook is known
		<-time.After(time.Millisecond)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer.Store(&data)
		allowed.Store(false)
		var w *httptest.ResponseRecorder
		frugal.Run(t, len(data), func() { w = post(t) })
		var status metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
			t.Fatalf("%d %v: %.300q", w.Code, err, w.Body)
		}
		switch {
		case strings.Contains(status.Message, "panic"):
			t.Fatalf("%q: %+v", data, status)
		case w.Code < 300 && !allowed.Load():
			t.Fatalf("%q did not allow it: %d %s", data, w.Code, w.Body)
		}
	})
}

// ask makes the server show config maps to a webhook.
func (a *quarry) ask(f *testing.F, hook *httptest.Server) {
	f.Helper()
	url, none := hook.URL, admissionregistrationv1.SideEffectClassNone
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	config := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "hook"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "a.example.com", SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca},
			Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"*"},
				Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}}}}}
	_, err := a.own.Create(f.Context(), target.Of(admissionregistrationv1.SchemeGroupVersion.WithResource("mutatingwebhookconfigurations"), ""), config, metav1.CreateOptions{})
	orFail(f, err)
}
