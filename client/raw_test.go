package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/client"
)

// Who asks for a document hears what the server that was to give it has to say.
func TestRawRefusal(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no metric qps","code":500}`)
	}))
	defer s.Close()
	transport, err := client.NewHTTP(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Raw(t.Context(), transport, "/apis/custom.metrics.k8s.io/v1beta2/x"); err == nil || err.Error() != "no metric qps" {
		t.Errorf("%v", err)
	}
}
