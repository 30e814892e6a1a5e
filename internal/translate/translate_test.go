package translate

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestWhatIsTranslated: which requests ask for protocols that engines don't speak.
func TestWhatIsTranslated(t *testing.T) {
	for protocol, want := range map[string][2]bool{
		"": {}, "v4.channel.k8s.io": {}, "v5.channel.k8s.io": {true, false}, "v4.channel.k8s.io, v5.channel.k8s.io": {true, false},
		"SPDY/3.1+portforward.k8s.io": {false, true}, "portforward.k8s.io": {},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		if protocol != "" {
			r.Header.Set("Sec-Websocket-Protocol", protocol)
		}
		if got := [2]bool{Exec(r), Forward(r)}; got != want {
			t.Errorf("%q: %v, want %v", protocol, got, want)
		}
	}
}

// TestRefusals: what is told of a remote that refuses.
func TestRefusals(t *testing.T) {
	for raw, want := range map[string]string{
		"no such pod\n": "no such pod",
		`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pod: gone"}`: "pod: gone",
		`{"kind":"Pod"}`: `{"kind":"Pod"}`,
	} {
		if got := refusal(http.StatusNotFound, []byte(raw)); got.Text != want || got.Code != http.StatusNotFound {
			t.Errorf("%q: %v", raw, got)
		}
	}
}
