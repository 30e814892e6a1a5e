package webhook

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
	"github.com/sampan-dev/sampan/internal/target"
)

// In the namespace of its own service a webhook that hangs at one request is heeded
// like anywhere, and one that is down is not.
func TestOwnRepair(t *testing.T) {
	h := &hook{name: "h", client: webhook.ClientConfig{Service: &webhook.Service{Namespace: "hooks", Name: "s"}}}
	at := func(namespace string) *match.Request {
		pods := target.Of(corev1.SchemeGroupVersion.WithResource("pods"), namespace)
		return &match.Request{Namespace: namespace, Attributes: &resource.Attributes{Target: pods}}
	}
	goesOn := func(ctx context.Context, namespace string) bool {
		ignored, _ := h.verdict(at(namespace), h.missed(ctx, errors.New("no answer")))
		return ignored
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range downAfter {
		if goesOn(gone, "hooks") {
			t.Fatal("down, since a client went away")
		}
	}
	for i := range downAfter - 1 {
		if goesOn(t.Context(), "hooks") {
			t.Fatalf("down after %d calls", i+1)
		}
	}
	if goesOn(t.Context(), "elsewhere") {
		t.Error("what is down lets pass elsewhere")
	}
	if !goesOn(t.Context(), "hooks") {
		t.Error("what is down stops its own repair")
	}
}
