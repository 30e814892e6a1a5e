package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// provider is an issuer on the loopback interface.
type provider struct {
	*httptest.Server
	key *ecdsa.PrivateKey
	// claims are what /claims answers with, a token, to the bearer of "letmein".
	claims string
	asked  int // for its description
}

func startProvider(t *testing.T) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/claims":
			if r.Header.Get("Authorization") != "Bearer letmein" {
				http.Error(w, "who are you", http.StatusForbidden)
				return
			}
			_, _ = io.WriteString(w, p.claims)
		case ConfigurationPath:
			p.asked++
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/keys")
		case "/keys":
			public, err := publicKey("k1", &key.PublicKey)
			if err != nil {
				t.Error(err)
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{public}})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := jwt.MapClaims{"iss": p.URL, "aud": "sampan", "sub": "jane", "exp": time.Now().Add(time.Hour).Unix(), "jti": "id-1"}
	maps.Copy(all, claims)
	made := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	made.Header["kid"] = "k1"
	text, err := made.SignedString(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// configuration is a file for the provider; rest is indented below the issuer's entry.
func (p *provider) configuration(t *testing.T, path, rest string) {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	text := fmt.Sprintf("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: %s\n    audiences: [sampan, boats]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n      %s\n%s",
		p.URL, strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n      "), rest)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const mappings = `
  claimMappings:
    username: {expression: '"oidc:" + claims.sub'}
    groups: {claim: roles, prefix: "oidc:"}
    uid: {claim: uid}
    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]
  claimValidationRules:
  - {expression: 'claims.tenant != "evil"', message: no evil tenants}
  - {claim: hd, requiredValue: example.com}
  userValidationRules:
  - {expression: "!user.username.startsWith('oidc:system:')", message: reserved}
anonymous: {enabled: true, conditions: [{path: /livez}]}
`

func TestStructuredConfiguration(t *testing.T) {
	p := startProvider(t)
	path := filepath.Join(t.TempDir(), "authn.yaml")
	p.configuration(t, path, mappings)
	sources, err := NewSources(Settings{ConfigPath: path}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{Others: []TokenSource{sources}, Anonymous: sources.Anonymous})
	good := map[string]any{"roles": []string{"crew", "cook"}, "uid": "u1", "tenant": "acme", "hd": "example.com"}
	with := func(claims map[string]any) map[string]any {
		all := maps.Clone(good)
		maps.Copy(all, claims)
		return all
	}
	v, err := a.ByToken(t.Context(), p.token(t, good), nil)
	if got, want := fmt.Sprintf("%+v %v", v.User, err), "{Name:oidc:jane UID:u1 Groups:[oidc:crew oidc:cook system:authenticated] Extra:map[authentication.kubernetes.io/credential-id:[JTI=id-1] example.com/tenant:[acme]]} <nil>"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, c := range map[string]struct {
		claims map[string]any
		want   string
	}{
		"another audience": {with(map[string]any{"aud": "others"}), "expected audience in"},
		"expired":          {with(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), "token is expired"},
		"evil tenant":      {with(map[string]any{"tenant": "evil"}), "no evil tenants"},
		"wrong claim":      {with(map[string]any{"hd": "example.org"}), "required claim hd value does not match"},
		"reserved name":    {with(map[string]any{"sub": "system:x"}), "reserved"},
		"another issuer":   {with(map[string]any{"iss": "https://elsewhere.example"}), "invalid bearer token"},
		"odd groups":       {with(map[string]any{"roles": 5}), "neither a string nor a list"},
	} {
		if _, err := a.ByToken(t.Context(), p.token(t, c.claims), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if !sources.Anonymous("/livez") || sources.Anonymous("/healthz") {
		t.Error("anonymous is not as configured")
	}

	// The file changes: what was good is no more, what cannot be read changes nothing.
	p.configuration(t, path, "  claimMappings:\n    username: {claim: sub, prefix: \"new:\"}\n")
	sources.Reload()
	if v, err := a.ByToken(t.Context(), p.token(t, nil), nil); err != nil || v.User.Name != "new:jane" {
		t.Errorf("after a reload: %+v %v", v, err)
	}
	if err := os.WriteFile(path, []byte("kind: Nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	sources.Reload()
	if v, err := a.ByToken(t.Context(), p.token(t, nil), nil); err != nil || v.User.Name != "new:jane" {
		t.Errorf("after nonsense: %+v %v", v, err)
	}
}

func TestFlagsForOneIssuer(t *testing.T) {
	p := startProvider(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := OIDC{IssuerURL: p.URL, ClientID: "sampan", GroupsClaim: "roles", CAPath: ca, SigningAlgs: []string{"ES256"}}
	sources, err := NewSources(Settings{OIDC: flags}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v, ok, err := sources.Check(t.Context(), p.token(t, map[string]any{"roles": "crew"}), []string{issuer})
	if err != nil || !ok || v.User.Name != p.URL+"#jane" || v.User.Groups[0] != "crew" {
		t.Errorf("%+v %v %v", v, ok, err)
	}
	flags.SigningAlgs = nil // RS256
	if sources, err = NewSources(Settings{OIDC: flags}, time.Now, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sources.Check(t.Context(), p.token(t, nil), nil); err == nil || !strings.Contains(err.Error(), "ES256") {
		t.Errorf("another algorithm: %v", err)
	}
}

// Groups that are elsewhere are fetched from there.
func TestDistributedClaims(t *testing.T) {
	p := startProvider(t)
	path := filepath.Join(t.TempDir(), "authn.yaml")
	p.configuration(t, path, "  claimMappings:\n    username: {claim: sub, prefix: \"\"}\n    groups: {claim: roles, prefix: \"oidc:\"}\n")
	at := func(url, token string) map[string]any {
		return map[string]any{"_claim_names": map[string]string{"roles": "src"}, "_claim_sources": map[string]any{"src": map[string]string{"endpoint": url, "access_token": token}}}
	}
	here := at(p.URL+"/claims", "letmein")
	for name, c := range map[string]struct {
		answer, claims map[string]any
		raw, want      string
	}{
		"groups":               {answer: map[string]any{"roles": []string{"crew"}}, claims: here, want: "[oidc:crew system:authenticated]"},
		"one group":            {answer: map[string]any{"roles": "crew"}, claims: here, want: "[oidc:crew system:authenticated]"},
		"there already":        {claims: withClaims(here, map[string]any{"roles": "cook"}), want: "[oidc:cook system:authenticated]"},
		"of another claim":     {claims: map[string]any{"_claim_names": map[string]string{"x": "src"}, "_claim_sources": map[string]any{"src": map[string]string{"endpoint": "https://127.0.0.1:1"}}}, want: "[system:authenticated]"},
		"given at once":        {claims: map[string]any{"_claim_names": map[string]string{"roles": "src"}, "_claim_sources": map[string]any{"src": map[string]string{"JWT": "x"}}}, want: "[system:authenticated]"},
		"no such claim":        {answer: map[string]any{}, claims: here, want: "did not contain claim: roles"},
		"for others":           {answer: map[string]any{"aud": "others", "roles": "crew"}, claims: here, want: "expected audience"},
		"old":                  {answer: map[string]any{"exp": 1, "roles": "crew"}, claims: here, want: "token is expired"},
		"of a strange issuer":  {answer: map[string]any{"iss": "https://127.0.0.1:1", "roles": "crew"}, claims: here, want: "verifying untrusted issuer https://127.0.0.1:1 failed"},
		"rubbish":              {raw: "rubbish", claims: here, want: "malformed token"},
		"too much":             {raw: strings.Repeat("x", maxClaims+1), claims: here, want: "more than 1048576 bytes"},
		"without the way in":   {claims: at(p.URL+"/claims", "no"), want: "403 Forbidden"},
		"nobody there":         {claims: at("https://127.0.0.1:1/claims", ""), want: "while getting distributed claim"},
		"no sources":           {claims: map[string]any{"_claim_names": map[string]string{"roles": "src"}}, want: "source does not exist"},
		"a source that is not": {claims: map[string]any{"_claim_names": map[string]string{"roles": "x"}, "_claim_sources": map[string]any{}}, want: "source does not exist"},
		"odd names":            {claims: map[string]any{"_claim_names": 5}, want: "failed to unmarshal claims"},
		"odd sources":          {claims: map[string]any{"_claim_names": map[string]string{"roles": "src"}, "_claim_sources": "x"}, want: "failed to unmarshal claims"},
	} {
		sources, err := NewSources(Settings{ConfigPath: path}, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if p.claims = c.raw; c.raw == "" {
			p.claims = p.token(t, c.answer)
		}
		v, err := New(Config{Others: []TokenSource{sources}}).ByToken(t.Context(), p.token(t, c.claims), nil)
		got := fmt.Sprint(v.User.Groups)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func withClaims(claims, more map[string]any) map[string]any {
	all := maps.Clone(claims)
	maps.Copy(all, more)
	return all
}

// Who vouches for a token is asked about it again after ten seconds, and at once
// when the configuration has changed.
func TestVerdictsAreKept(t *testing.T) {
	p := startProvider(t)
	path := filepath.Join(t.TempDir(), "authn.yaml")
	groups := "  claimMappings:\n    username: {claim: sub, prefix: \"\"}\n    groups: {claim: roles, prefix: %q}\n"
	p.configuration(t, path, fmt.Sprintf(groups, "a:"))
	now := time.Now()
	sources, err := NewSources(Settings{ConfigPath: path}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	token := p.token(t, map[string]any{"_claim_names": map[string]string{"roles": "src"},
		"_claim_sources": map[string]any{"src": map[string]string{"endpoint": p.URL + "/claims", "access_token": "letmein"}}})
	who := func() string {
		v, _, err := sources.Check(t.Context(), token, nil)
		if err != nil {
			t.Fatal(err)
		}
		return v.User.Groups[0]
	}
	p.claims = p.token(t, map[string]any{"roles": "crew"})
	first := who()
	p.claims = p.token(t, map[string]any{"roles": "cook"})
	second := who()
	now = now.Add(keepVerdict + time.Second)
	third := who()
	p.configuration(t, path, fmt.Sprintf(groups, "b:"))
	sources.Reload()
	if got := first + " " + second + " " + third + " " + who(); got != "a:crew a:crew a:cook b:cook" {
		t.Errorf("groups %s", got)
	}
}

func TestBadConfigurations(t *testing.T) {
	head := "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	one := func(entry string) string { return head + "jwt: [{" + entry + "}]" }
	const tail = "issuer: {url: 'https://x.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}"
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":      {head + "jwts: []", "unknown field"},
		"http":               {head + "jwt: [{issuer: {url: 'http://x.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]", "URL scheme must be https"},
		"no prefix":          {head + "jwt: [{issuer: {url: 'https://x.example', audiences: [a]}, claimMappings: {username: {claim: sub}}}]", "prefix is required"},
		"two audiences":      {head + "jwt: [{issuer: {url: 'https://x.example', audiences: [a, b]}, claimMappings: {username: {claim: sub, prefix: ''}}}]", "MatchAny"},
		"own issuer":         {one("issuer: {url: 'https://own.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}"), "URL must not overlap with disallowed issuers"},
		"the same discovery": {one("issuer: {url: 'https://x.example', discoveryURL: 'https://x.example/', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}"), "discoveryURL must be different from URL"},
		"egress":             {one("issuer: {url: 'https://x.example', egressSelectorType: cluster, audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}"), "egress selectors are not supported"},
		"empty audience":     {one("issuer: {url: 'https://x.example', audiences: ['']}, claimMappings: {username: {claim: sub, prefix: ''}}"), "jwt[0].issuer.audiences[0]: Required value"},
		"twice":              {head + "jwt: [{" + tail + "}, {" + tail + "}]", `jwt[1].issuer.url: Duplicate value: "https://x.example"`},
		"rule of two":        {one(tail + ", claimValidationRules: [{claim: a, expression: b}]"), "claim and expression can't both be set"},
		"rule of none":       {one(tail + ", claimValidationRules: [{}]"), "claim or expression is required"},
		"rule twice":         {one(tail + ", claimValidationRules: [{claim: a}, {claim: a}]"), "Duplicate value"},
		"user rule":          {one(tail + ", userValidationRules: [{expression: ''}]"), "jwt[0].userValidationRules[0].expression: Required value"},
		"reserved extra":     {one("issuer: {url: 'https://x.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: x.k8s.io/a, valueExpression: claims.a}]}"), "reserved for Kubernetes use"},
		"plain extra":        {one("issuer: {url: 'https://x.example', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: Acme, valueExpression: claims.a}]}"), "must be a domain-prefixed path"},
		"unverified email":   {one("issuer: {url: 'https://x.example', audiences: [a]}, claimMappings: {username: {expression: claims.email}}"), "claims.email_verified must be used"},
		"anonymous":          {head + "anonymous: {enabled: false, conditions: [{path: /livez}]}", "enabled should be set to true"},
		"bad expression":     {head + "jwt: [{issuer: {url: 'https://x.example', audiences: [a]}, claimMappings: {username: {expression: 'claims.'}}}]", "compilation failed"},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewSources(Settings{ConfigPath: path, Own: []string{"https://own.example"}}, time.Now, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A server that reviews tokens is asked once for each, while its answer holds.
func TestReviewByAnother(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		if review.Spec.Token == "good" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "zoe", Groups: []string{"crew"}}}
		}
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "hook.kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", server.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	sources, err := NewSources(Settings{WebhookPath: path}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{Others: []TokenSource{sources}})
	for range 3 {
		if v, err := a.ByToken(t.Context(), "good", []string{issuer}); err != nil || v.User.Name != "zoe" || !v.User.In("system:authenticated") {
			t.Errorf("%+v %v", v, err)
		}
	}
	if _, err := a.ByToken(t.Context(), "bad", []string{issuer}); err == nil {
		t.Error("a bad token was taken")
	}
	if asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
}

func TestBootstrapToken(t *testing.T) {
	secret := func(change func(map[string][]byte)) objects {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: corev1.SecretTypeBootstrapToken,
			Data: map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
				"auth-extra-groups": []byte("system:bootstrappers:kubeadm")}}
		change(s.Data)
		return objects{"secrets kube-system/bootstrap-token-abcdef": s}
	}
	const token = "abcdef.0123456789abcdef"
	a := New(Config{Objects: secret(func(map[string][]byte) {})})
	v, err := a.ByToken(t.Context(), token, nil)
	if err != nil || fmt.Sprint(v.User.Name, v.User.Groups) != "system:bootstrap:abcdef[system:bootstrappers system:bootstrappers:kubeadm system:authenticated]" {
		t.Errorf("%+v %v", v, err)
	}
	for name, change := range map[string]func(map[string][]byte){
		"has expired":         func(d map[string][]byte) { d["expiration"] = []byte(time.Now().Add(-time.Minute).Format(time.RFC3339)) },
		"not for authenticat": func(d map[string][]byte) { d["usage-bootstrap-authentication"] = []byte("no") },
		"has another secret":  func(d map[string][]byte) { d["token-secret"] = []byte("0123456789abcdeX") },
		"brings a group":      func(d map[string][]byte) { d["auth-extra-groups"] = []byte("system:masters") },
		"has another id":      func(d map[string][]byte) { d["token-id"] = []byte("zzzzzz") },
	} {
		if _, err := New(Config{Objects: secret(change)}).ByToken(t.Context(), token, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No token may do more than be refused.
func FuzzToken(f *testing.F) {
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for _, seed := range []string{"", "a.b.c", "..", none + ".e30.", "abcdef.0123456789abcdef", strings.Repeat("A", 1<<14), "\xff.\xff.\xff",
		none + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"kubernetes/serviceaccount"}`)) + ".x",
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":1}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":["x"],"aud":5,"exp":"never"}`)) + ".AA"} {
		f.Add(seed)
	}
	o := world()
	f.Fuzz(func(t *testing.T, token string) {
		a := New(Config{Tokens: fuzzTokens(t, o), Objects: o})
		if v, err := a.ByToken(t.Context(), token, nil); err == nil {
			t.Errorf("token %q is %+v", token, v)
		}
	})
}

var fuzzKey *Tokens

func fuzzTokens(t *testing.T, o objects) *Tokens {
	if fuzzKey == nil {
		fuzzKey = newTokens(t, o)
	}
	return fuzzKey
}
