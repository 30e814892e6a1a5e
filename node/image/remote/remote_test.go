package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest is what the registries of these tests have under every tag.
const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`

func answerManifest(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	_, _ = io.WriteString(w, manifest)
}

func hostOf(s *httptest.Server) string {
	_, host, _ := strings.Cut(s.URL, "://")
	return host
}

// A registry with a certificate that only hosts.toml, or a directory as Docker has
// it, makes believable.
func TestCertificates(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(answerManifest))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	repo := Repository{hostOf(server), "a"}
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":          {nil, "certificate signed by unknown authority"},
		"hosts.toml":       {map[string]string{"hosts.toml": `server = "` + server.URL + `"` + "\nca = \"ca.crt\"\n", "ca.crt": string(authority)}, ""},
		"Docker's":         {map[string]string{"ca.crt": string(authority)}, ""},
		"skip_verify":      {map[string]string{"hosts.toml": `server = "` + server.URL + `"` + "\nskip_verify = true\n"}, ""},
		"no certificate":   {map[string]string{"hosts.toml": "ca = \"ca.crt\"\n", "ca.crt": "nonsense"}, "no certificate in it"},
		"missing":          {map[string]string{"hosts.toml": "ca = \"ca.crt\"\n"}, "no such file"},
		"nonsense":         {map[string]string{"hosts.toml": "ca = [\n"}, "hosts.toml: line 2"},
		"may not be asked": {map[string]string{"hosts.toml": "capabilities = [\"push\"]\n"}, "may resolve"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := filepath.Join(dir, strings.Replace(repo.Registry, ":", "_", 1)+"_")
			if err := os.Mkdir(at, 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range test.files {
				if err := os.WriteFile(filepath.Join(at, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := New(Config{HostDirs: []string{dir}})
			_, raw, err := c.Manifest(t.Context(), repo, "1")
			if test.want == "" && (err != nil || string(raw) != manifest) {
				t.Errorf("%q, %v", raw, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// A host that says no is followed by the server, which hosts.toml says nothing of:
// what the host said is told beside what came of the server, whose kind counts. A host
// that merely has nothing is not spoken of.
func TestFirstErrorIsToldToo(t *testing.T) {
	for status, test := range map[int]struct {
		told bool
		text string
	}{
		http.StatusUnauthorized: {true, "401 Unauthorized)"},
		http.StatusNotFound:     {false, "404"},
	} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		t.Cleanup(server.Close)
		dir, repo := t.TempDir(), Repository{hostOf(server), "a"}
		at := filepath.Join(dir, strings.Replace(repo.Registry, ":", "_", 1)+"_")
		authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(filepath.Join(at, "ca.crt"), authority, 0o600),
			os.WriteFile(filepath.Join(at, "hosts.toml"), []byte(`[host."`+server.URL+`"]`+"\nca = \"ca.crt\"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, _, err := New(Config{HostDirs: []string{dir}}).Manifest(t.Context(), repo, "1")
		if err == nil || errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "certificate signed by unknown authority") ||
			strings.Contains(err.Error(), test.text) != test.told {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// guarded is a registry that believes tokens alone, and its token server.
type guarded struct {
	*httptest.Server
	mu     sync.Mutex
	issued []string
}

func newGuarded(t *testing.T) *guarded {
	g := &guarded{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		scopes := strings.Join(r.URL.Query()["scope"], " ")
		g.mu.Lock()
		g.issued = append(g.issued, scopes)
		g.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "for:" + scopes, "expires_in": 300})
	})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		scope := ""
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/team/"); ok {
			scope = "repository:team/" + strings.Split(rest, "/")[0] + ":pull"
		}
		if token := r.Header.Get("Authorization"); !strings.HasPrefix(token, "Bearer for:"+scope) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="here",scope=%q`, g.URL+"/token", scope))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answerManifest(w, r)
	})
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)
	return g
}

func as(user, password string) Config {
	return Config{HostDirs: []string{}, Credentials: func(string) (Credentials, error) {
		return Credentials{Username: user, Password: password}, nil
	}}
}

// A token is asked for once a repository, with the right scope, and a wrong
// password is told as what it is.
func TestTokens(t *testing.T) {
	g := newGuarded(t)
	c := New(as("me", "secret"))
	for range 3 {
		for _, name := range []string{"team/a", "team/b"} {
			if _, raw, err := c.Manifest(t.Context(), Repository{hostOf(g.Server), name}, "1"); err != nil || string(raw) != manifest {
				t.Fatalf("%s: %q, %v", name, raw, err)
			}
		}
	}
	if got, want := fmt.Sprint(g.issued), "[repository:team/a:pull repository:team/b:pull]"; got != want {
		t.Errorf("tokens issued for %s, want %s", got, want)
	}
	if err := c.Ping(t.Context(), hostOf(g.Server)); err != nil {
		t.Error("login: ", err)
	}
	for what, cfg := range map[string]Config{"a guess": as("me", "guess"), "nobody": {HostDirs: []string{}}} {
		c := New(cfg)
		if _, _, err := c.Manifest(t.Context(), Repository{hostOf(g.Server), "team/a"}, "1"); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v, want access denied", what, err)
		}
		if err := c.Ping(t.Context(), hostOf(g.Server)); !errors.Is(err, ErrDenied) {
			t.Errorf("login with %s: %v, want access denied", what, err)
		}
	}
}

// Tags come in pages, all of one server, and have a limit.
func TestTags(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path + "?" + r.URL.RawQuery {
		case "/v2/team/a/tags/list?", "/v2/team/lost/tags/list?":
			w.Header().Set("Link", `</v2/team/a/tags/list?n=2&last=2>; rel="next"`)
			if strings.Contains(r.URL.Path, "lost") {
				w.Header().Set("Link", `<http://elsewhere.test/v2/team/a/tags/list?last=2>; rel="next"`)
			}
			_, _ = w.Write([]byte(`{"tags":["1","2"]}`))
		case "/v2/team/a/tags/list?n=2&last=2":
			_, _ = w.Write([]byte(`{"tags":["3"]}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	c := New(Config{HostDirs: []string{}})
	for _, a := range []struct {
		name, want string
		most       int
	}{
		{"team/a", "[1 2 3] <nil>", 3}, {"team/a", "more than 2 tags", 2}, {"team/lost", "on another server, elsewhere.test", 9}, {"team/none", "404", 9},
	} {
		tags, err := c.Tags(t.Context(), Repository{hostOf(server), a.name}, a.most)
		if got := fmt.Sprint(tags, err); !strings.Contains(got, a.want) {
			t.Errorf("%s: %s, want %s", a.name, got, a.want)
		}
	}
}

func TestBasic(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answerManifest(w, r)
	}))
	defer server.Close()
	if err := New(as("me", "secret")).Ping(t.Context(), hostOf(server)); err != nil {
		t.Error(err)
	}
	if err := New(as("me", "guess")).Ping(t.Context(), hostOf(server)); !errors.Is(err, ErrDenied) {
		t.Errorf("a guess: %v", err)
	}
}

// A registry must not send us, with or without credentials, to this machine's own
// services; one that is here itself may. Credentials stay with the registry.
func TestRedirects(t *testing.T) {
	for address, refused := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "0.0.0.0:80": true, "[::ffff:127.0.0.1]:80": true,
		"169.254.169.254:80": true, "[fe80::1%eth0]:80": true, "[fd00:ec2::254]:80": true, "224.0.0.1:80": true, "name:80": true,
		"203.0.113.7:443": false, "10.0.0.7:443": false, "[2001:db8::1]:443": false,
	} {
		if err := elsewhere(address, false); (err != nil) != refused {
			t.Errorf("sent to %s: %v", address, err)
		}
	}
	secret := ""
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret = r.Header.Get("Authorization")
		answerManifest(w, r)
	}))
	defer inner.Close()
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, inner.URL+"/v2/a/manifests/1", http.StatusTemporaryRedirect)
	}))
	defer outer.Close()
	c := New(as("me", "secret"))
	if _, _, err := c.Manifest(t.Context(), Repository{hostOf(outer), "a"}, "1"); err != nil || secret != "" {
		t.Errorf("from here to here: %v; the other server saw %q", err, secret)
	}
	// The same, from a registry that is elsewhere: its way out ends before a byte.
	_, redirected := transports(nil, false)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, inner.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := redirected.RoundTrip(req)
	if err == nil {
		answer.Body.Close()
	}
	if !errors.Is(err, errRefused) {
		t.Errorf("from elsewhere to here: %v", err)
	}
}

// What a manifest says of itself and what the registry says of it must agree.
func TestWrongDigests(t *testing.T) {
	said := digest.FromString("something else").String()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/lied") {
			w.Header().Set("Docker-Content-Digest", said)
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}
		answerManifest(w, r)
	}))
	defer server.Close()
	c, repo := New(Config{HostDirs: []string{}}), Repository{hostOf(server), "a"}
	for _, ref := range []string{said, "lied"} {
		if _, _, err := c.Manifest(t.Context(), repo, ref); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	desc := ocispec.Descriptor{Digest: digest.FromString(manifest), Size: int64(len(manifest))}
	if _, err := c.Blob(t.Context(), repo, desc, 5); !errors.Is(err, ErrInvalid) {
		t.Errorf("another part than was asked for: %v", err)
	}
}

// handler is a registry in this process, without a network, so that time can be
// false.
type handler func(w http.ResponseWriter, r *http.Request)

// RoundTrip implements http.RoundTripper.
func (h handler) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h(w, r)
	answer := w.Result()
	answer.Request = r
	return answer, nil
}

// A registry that asks for time gets it, up to a limit; one that is broken is
// tried again, and then told.
func TestPatience(t *testing.T) {
	for name, test := range map[string]struct {
		refusals int
		status   int
		after    string
		least    time.Duration
		most     time.Duration
		fails    string
	}{
		"429 in seconds":     {2, 429, "7", 14 * time.Second, 15 * time.Second, ""},
		"429 for an hour":    {1, 429, "3600", 30 * time.Second, 31 * time.Second, ""},
		"429 nonsense":       {1, 429, "soon", 500 * time.Millisecond, time.Second, ""},
		"429 without":        {1, 429, "", 500 * time.Millisecond, time.Second, ""},
		"500 thrice":         {3, 500, "", 3500 * time.Millisecond, 4 * time.Second, ""},
		"500 always":         {99, 500, "", 7 * time.Second, 8 * time.Second, "500 out of order"},
		"429 always":         {99, 429, "100", 2 * time.Minute, 3 * time.Minute, "429 out of order"},
		"404 is an answer":   {99, 404, "5", 0, time.Millisecond, "404 out of order"},
		"a time in the past": {1, 503, "Sat, 01 Jan 2000 00:00:00 GMT", 500 * time.Millisecond, time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left := test.refusals
				c := New(Config{HostDirs: []string{}, Transport: handler(func(w http.ResponseWriter, r *http.Request) {
					if left--; left < 0 {
						answerManifest(w, r)
						return
					}
					if test.after != "" {
						w.Header().Set("Retry-After", test.after)
					}
					w.WriteHeader(test.status)
					_, _ = io.WriteString(w, "out of order")
				})})
				start := time.Now()
				_, _, err := c.Manifest(t.Context(), Repository{"registry.test", "a"}, "1")
				if took := time.Since(start); took < test.least || took > test.most {
					t.Errorf("took %s, want %s to %s", took, test.least, test.most)
				}
				if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
					t.Errorf("%v, want %q", err, test.fails)
				}
			})
		})
	}
}

// slow is a body that gives a byte now and then; every 0 is never.
type slow struct {
	ctx   context.Context //nolint:containedctx // it is the body's life
	every time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	var next <-chan time.Time
	if s.every > 0 {
		next = time.After(s.every)
	}
	select {
	case <-next:
		p[0] = 'x'
		return 1, nil
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	}
}

// Close implements io.Closer.
func (slow) Close() error { return nil }

// slowly answers with a slow body, or not at all.
type slowly struct {
	every  time.Duration
	silent bool
}

// RoundTrip implements http.RoundTripper.
func (s slowly) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.silent {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: slow{r.Context(), s.every}, ContentLength: -1, Request: r}, nil
}

// A server that does not answer, falls silent or drips does not hold us for ever.
func TestStalls(t *testing.T) {
	desc := ocispec.Descriptor{Digest: digest.FromString(manifest), Size: 1 << 30}
	for name, test := range map[string]struct {
		server slowly
		least  time.Duration
		most   time.Duration
	}{
		"drips":        {slowly{every: 10 * time.Second}, time.Minute, 2 * time.Minute},
		"falls silent": {slowly{}, 30 * time.Second, 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(Config{HostDirs: []string{}, Transport: test.server})
				start := time.Now()
				body, err := c.Blob(t.Context(), Repository{"registry.test", "a"}, desc, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, body)
				if took := time.Since(start); !errors.Is(err, errStalled) || took < test.least || took > test.most {
					t.Errorf("%v after %s", err, took)
				}
				if err := body.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{HostDirs: []string{}, Transport: slowly{silent: true}})
		start := time.Now()
		_, err := c.Blob(t.Context(), Repository{"registry.test", "a"}, desc, 0)
		if took := time.Since(start); !errors.Is(err, errStalled) || took > 4*time.Minute {
			t.Errorf("no answer: %v after %s", err, took)
		}
	})
}

// A blob goes in chunks that can be repeated, and not at all when another
// repository of the registry has it.
func TestUpload(t *testing.T) {
	var got bytes.Buffer
	chunks, broken, mounts := 0, false, 0
	mux := http.NewServeMux()
	mux.HandleFunc("HEAD /v2/a/blobs/{digest}", http.NotFound)
	mux.HandleFunc("POST /v2/a/blobs/uploads/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/v2/a/blobs/uploads/1?state=x")
		if r.URL.Query().Get("from") == "other" {
			mounts++
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("PATCH /v2/a/blobs/uploads/1", func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if want := fmt.Sprintf("%d-%d", got.Len(), got.Len()+len(raw)-1); err != nil || r.Header.Get("Content-Range") != want || r.URL.Query().Get("state") != "x" {
			t.Errorf("a chunk of %s as %s, %v; want %s", r.Header.Get("Content-Range"), r.URL, err, want)
		}
		if chunks++; chunks == 2 && !broken {
			broken = true
			chunks--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got.Write(raw)
		w.Header().Set("Location", "/v2/a/blobs/uploads/1?state=x")
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("PUT /v2/a/blobs/uploads/1", func(w http.ResponseWriter, r *http.Request) {
		if want := digest.FromBytes(got.Bytes()).String(); r.URL.Query().Get("digest") != want {
			t.Errorf("it ends as %s, want %s", r.URL, want)
		}
		w.WriteHeader(http.StatusCreated)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "blob")
	content := bytes.Repeat([]byte("0123456789abcdef"), (2*uploadChunk+100)/16)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	up := Upload{Desc: ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}, Open: func() (*os.File, error) { return os.Open(file) }}
	c, repo := New(Config{HostDirs: []string{}}), Repository{hostOf(server), "a"}
	if sent, err := c.Push(t.Context(), repo, up); !sent || err != nil || chunks != 3 || !broken {
		t.Errorf("Push = %v, %v in %d chunks", sent, err, chunks)
	}
	up.From = []string{"other"}
	if sent, err := c.Push(t.Context(), repo, up); sent || err != nil || mounts != 1 {
		t.Errorf("Push of what another repository has = %v, %v; %d mounts", sent, err, mounts)
	}
}
