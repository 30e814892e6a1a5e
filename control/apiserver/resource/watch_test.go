package resource_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// listen serves f over a socket, as alice.
func (f *fixture) listen(t *testing.T) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.ServeHTTP(w, r.WithContext(identity.With(r.Context(), alice)))
	}))
	t.Cleanup(server.Close)
	return server
}

func post(t *testing.T, server *httptest.Server, name string) {
	t.Helper()
	made, err := server.Client().Post(server.URL+"/api/v1/namespaces/a/configmaps", "application/json",
		strings.NewReader(`{"metadata":{"name":"`+name+`"}}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = made.Body.Close()
	if made.StatusCode != http.StatusCreated {
		t.Fatalf("create: %s", made.Status)
	}
}

// Over WebSocket each event is a message: text for JSON, bare protobuf else.
func TestWatchOverWebSocket(t *testing.T) {
	server := serve(t, nil).listen(t)
	post(t, server, "one")
	for _, accept := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		t.Run(accept, func(t *testing.T) {
			cfg, err := websocket.NewConfig(strings.Replace(server.URL, "http", "ws", 1)+"/api/v1/configmaps?watch=1&resourceVersion=0", server.URL)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Header.Set("Accept", accept)
			ws, err := cfg.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			var message []byte
			if err := websocket.Message.Receive(ws, &message); err != nil {
				t.Fatal(err)
			}
			var event metav1.WatchEvent
			if accept == "application/json" {
				err = json.Unmarshal(message, &event)
			} else {
				err = event.Unmarshal(message)
			}
			if err != nil || event.Type != "ADDED" || !strings.Contains(string(event.Object.Raw), "one") {
				t.Errorf("got %q: %v", message, err)
			}
		})
	}
}

// A watch that begins with a list is compressed for who accepts it, and each
// batch can be read when it arrives.
func TestWatchListIsCompressed(t *testing.T) {
	server := serve(t, nil).listen(t)
	post(t, server, "one")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+
		"/api/v1/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip")
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("encoded as %q", got)
	}
	z, err := gzip.NewReader(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	events := json.NewDecoder(z)
	for _, want := range []string{"ADDED", "BOOKMARK"} {
		var event metav1.WatchEvent
		if err := events.Decode(&event); err != nil || event.Type != want {
			t.Fatalf("got %s %s, %v; want %s", event.Type, event.Object.Raw, err, want)
		}
	}
	post(t, server, "two")
	var event metav1.WatchEvent
	if err := events.Decode(&event); err != nil || event.Type != "ADDED" {
		t.Errorf("got %s, %v", event.Type, err)
	}
}
