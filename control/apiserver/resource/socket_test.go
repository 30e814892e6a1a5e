package resource_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/internal/identity"
)

// Over a real HTTP/2 connection an event arrives when it happens, not when the
// watch ends, and a client that leaves frees its watch.
func TestWatchOverSocket(t *testing.T) {
	f := serve(t, nil)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.ServeHTTP(w, r.WithContext(identity.With(r.Context(), alice)))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/configmaps?watch=1&resourceVersion=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.ProtoMajor != 2 {
		t.Errorf("spoke %s", answer.Proto)
	}
	lines := bufio.NewScanner(answer.Body)
	for _, name := range []string{"one", "two"} {
		made, err := server.Client().Post(server.URL+"/api/v1/namespaces/a/configmaps", "application/json",
			strings.NewReader(`{"metadata":{"name":"`+name+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		made.Body.Close()
		if !lines.Scan() || !strings.Contains(lines.Text(), `"type":"ADDED"`) || !strings.Contains(lines.Text(), `"name":"`+name+`"`) {
			t.Fatalf("read %q, %v", lines.Text(), lines.Err())
		}
	}
}
