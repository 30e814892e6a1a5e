package speak

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"
)

// The first that a client prefers is chosen, of what is spoken.
func TestChoices(t *testing.T) {
	for accept, want := range map[string][]string{
		"":                                   {JSON},
		"*/*":                                {JSON},
		"application/*;q=0.5, " + YAML:       {YAML, JSON},
		"text/html":                          {},
		CBOR + ";q=0.1," + Protobuf:          {Protobuf, CBOR},
		"text/html, " + Protobuf + ", ;;, a": {Protobuf},
		JSON + ";;":                          {JSON}, // what is no parameter is nothing
		JSON + "; q = 0.2 ;x," + YAML:        {YAML, JSON},
		"APPLICATION/JSON":                   {}, // as upstream
	} {
		var got []string
		for _, c := range Choices(http.Header{"Accept": {accept}}) {
			got = append(got, c.Media)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", accept, got, want)
		}
	}
}

// Whatever character a string has, YAML tells it.
func TestInYAML(t *testing.T) {
	for r := rune(0); r <= 0x110000; r++ {
		if r > 0x2100 && r < 0xd700 || r > 0x10000 && r%0x1000 != 0 {
			continue // one is like another
		}
		want := "a" + string(r) + "z"
		data, err := json.Marshal(map[string]string{want: want})
		if err != nil {
			t.Fatal(err)
		}
		text, err := InYAML(data)
		if err != nil {
			t.Fatalf("%U: %v", r, err)
		}
		var got map[string]string
		if err := yaml.Unmarshal(text, &got); err != nil || got[want] != want {
			t.Fatalf("%U: %q is read as %q: %v", r, text, got, err)
		}
	}
}

// FuzzRefuse: whatever a client says that it accepts, it is refused in a media type
// that is spoken, and with something in it.
func FuzzRefuse(f *testing.F) {
	for _, accept := range []string{"", "*/*", JSON + ";as=Table", YAML + ";q=0.3, " + CBOR, Protobuf + ";g=a;v=b;as=c", "application/json;q=nan"} {
		f.Add(accept)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		Refuse(w, r, apierrors.NewUnauthorized("Unauthorized"))
		media, _, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
		if err != nil || !slices.Contains(all, media) || w.Code != http.StatusUnauthorized || w.Body.Len() == 0 {
			t.Fatalf("for %q: %d %v %q", accept, w.Code, w.Header(), w.Body)
		}
	})
}
