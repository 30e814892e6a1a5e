package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

// objects is what exists, by "resource namespace/name".
type objects map[string]runtime.Object

func (o objects) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	if obj, ok := o[t.String()]; ok {
		return obj, nil
	}
	return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
}

func world() objects {
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid-" + "1"}
	}
	return objects{
		"serviceaccounts x/robot": &corev1.ServiceAccount{ObjectMeta: meta("x", "robot")},
		"pods x/web":              &corev1.Pod{ObjectMeta: meta("x", "web"), Spec: corev1.PodSpec{ServiceAccountName: "robot", NodeName: "n1"}},
		"pods x/other":            &corev1.Pod{ObjectMeta: meta("x", "other"), Spec: corev1.PodSpec{ServiceAccountName: "default"}},
		"nodes n1":                &corev1.Node{ObjectMeta: meta("", "n1")},
	}
}

func newTokens(t *testing.T, o objects) *Tokens {
	t.Helper()
	key, err := pki.OpenTokenKey(filepath.Join(t.TempDir(), "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	return NewTokens(TokensConfig{Issuer: issuer, Sign: key, Objects: o, Now: time.Now})
}

func request(t *testing.T, tokens *Tokens, spec authenticationv1.TokenRequestSpec) (*authenticationv1.TokenRequest, error) {
	t.Helper()
	at := object("serviceaccounts", "x", "robot").Sub("token")
	got, err := tokens.Request(t.Context(), at, &authenticationv1.TokenRequest{Spec: spec}, func(string) {})
	if err != nil {
		return nil, err
	}
	return got.(*authenticationv1.TokenRequest), nil
}

// TestLongestToken: what is asked for beyond the longest life is cut, and told.
func TestLongestToken(t *testing.T) {
	for longest, want := range map[time.Duration]int64{0: 8760 * 3600, 24 * time.Hour: 24 * 3600, 10000 * time.Hour: 8760 * 3600} {
		tokens := newTokens(t, world())
		tokens.longest = longest
		year, said := int64(8760*3600), ""
		got, err := tokens.Request(t.Context(), object("serviceaccounts", "x", "robot").Sub("token"),
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &year}}, func(s string) { said = s })
		if err != nil {
			t.Fatal(err)
		}
		left := time.Until(got.(*authenticationv1.TokenRequest).Status.ExpirationTimestamp.Time)
		if wanted := time.Duration(want) * time.Second; left > wanted || left < wanted-time.Minute || (said != "") != (want < year) {
			t.Errorf("longest %v: lives %v, told %q", longest, left, said)
		}
	}
}

func TestTokenOfAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := world()
		tokens := newTokens(t, o)
		seconds := int64(3607)
		made, err := request(t, tokens, authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "uid-1"}})
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(made.Status.ExpirationTimestamp.Time); left != 3607*time.Second {
			t.Errorf("the token lives %s", left)
		}
		check := func() error { _, err := tokens.Check(t.Context(), made.Status.Token, []string{issuer}); return err }
		verdict, err := tokens.Check(t.Context(), made.Status.Token, []string{issuer, "elsewhere"})
		if err != nil {
			t.Fatal(err)
		}
		u := verdict.User
		if u.Name != "system:serviceaccount:x:robot" || u.UID != "uid-1" || !u.In("system:serviceaccounts:x") || !u.In(identity.Authenticated) {
			t.Errorf("user %+v", u)
		}
		if u.Extra[extraPodName][0] != "web" || u.Extra[extraNode][0] != "n1" || !strings.HasPrefix(u.Extra[credentialID][0], "JTI=") {
			t.Errorf("extra %v", u.Extra)
		}
		if !slices.Equal(verdict.Audiences, []string{issuer}) {
			t.Errorf("audiences %q", verdict.Audiences)
		}

		pod := o["pods x/web"]
		delete(o, "pods x/web")
		if err := check(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "invalidated") {
			t.Errorf("after the pod has gone: %v", err)
		}
		another := pod.DeepCopyObject().(*corev1.Pod)
		another.UID = "uid-2"
		o["pods x/web"] = another
		if err := check(); !errors.Is(err, ErrRefused) {
			t.Errorf("with another pod of the same name: %v", err)
		}
		o["pods x/web"] = pod
		time.Sleep(3607*time.Second + leeway + time.Second)
		if err := check(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after its time: %v", err)
		}
	})
}

func TestTokenRequestRefuses(t *testing.T) {
	tokens := newTokens(t, world())
	short, long := int64(60), int64(1)<<33
	pod := func(name, uid string) *authenticationv1.BoundObjectReference {
		r := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name}
		r.UID = "uid-" + "1"
		if uid != "" {
			r.UID = "uid-9"
		}
		return r
	}
	cases := map[string]struct {
		spec authenticationv1.TokenRequestSpec
		want func(error) bool
	}{
		"too short":         {authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}, apierrors.IsInvalid},
		"too long":          {authenticationv1.TokenRequestSpec{ExpirationSeconds: &long}, apierrors.IsInvalid},
		"no such pod":       {authenticationv1.TokenRequestSpec{BoundObjectRef: pod("none", "")}, apierrors.IsNotFound},
		"another's pod":     {authenticationv1.TokenRequestSpec{BoundObjectRef: pod("other", "")}, apierrors.IsBadRequest},
		"a pod of old":      {authenticationv1.TokenRequestSpec{BoundObjectRef: pod("web", "old")}, apierrors.IsConflict},
		"bound to anything": {authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "ConfigMap"}}, apierrors.IsBadRequest},
	}
	for name, c := range cases {
		if _, err := request(t, tokens, c.spec); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForgedTokens(t *testing.T) {
	tokens, others := newTokens(t, world()), newTokens(t, world())
	good, err := request(t, tokens, authenticationv1.TokenRequestSpec{})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := request(t, others, authenticationv1.TokenRequestSpec{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := request(t, tokens, authenticationv1.TokenRequestSpec{Audiences: []string{"elsewhere"}})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good.Status.Token, ".")
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	changed := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "robot", "admin", 2)))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	for name, token := range map[string]string{
		"signed by others": foreign.Status.Token, "for others": other.Status.Token, "rubbish": "abc", "empty parts": "..",
		"changed": parts[0] + "." + changed + "." + parts[2], "unsigned": none + "." + parts[1] + ".",
	} {
		if _, err := tokens.Check(t.Context(), token, []string{issuer}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
		review, err := New(Config{Tokens: tokens}).Review(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil || review.Status.Authenticated || review.Status.Error == "" {
			t.Errorf("review of %s: %+v %v", name, review, err)
		}
	}
	review, err := New(Config{Tokens: tokens}).Review(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: good.Status.Token}})
	if err != nil || !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:x:robot" {
		t.Errorf("review of a good token: %+v %v", review, err)
	}
}

func TestAuthenticate(t *testing.T) {
	ca, err := pki.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens := newTokens(t, world())
	made, err := request(t, tokens, authenticationv1.TokenRequestSpec{})
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{ClientCAs: ca.Pool(), Tokens: tokens, Now: time.Now})
	with := func(ca *pki.Authority, l pki.Leaf) func(*http.Request) {
		leaf, err := ca.Issue(l)
		if err != nil {
			t.Fatal(err)
		}
		return func(r *http.Request) { r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.Leaf}} }
	}
	alice := pki.Leaf{CommonName: "alice", Organizations: []string{"crew"}, Client: true}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	browser := func(protocols string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Sec-WebSocket-Protocol", protocols)
		}
	}
	encoded := websocketToken + base64.RawURLEncoding.EncodeToString([]byte(made.Status.Token))
	cases := []struct {
		name, path string
		prepare    func(*http.Request)
		want       string
	}{
		{"nobody", "/api", func(*http.Request) {}, ""},
		{"nobody asks for health", "/readyz", func(*http.Request) {}, identity.Anonymous},
		{"nobody asks for one check", "/readyz/ping", func(*http.Request) {}, ""},
		{"nobody asks for something like health", "/livezz", func(*http.Request) {}, ""},
		{"a certificate", "/api", with(ca, alice), "alice"},
		{"the same again", "/api", with(ca, alice), "alice"},
		{"of another authority", "/api", with(foreign, alice), ""},
		{"of another authority, for health", "/livez", with(foreign, alice), ""},
		{"a server's certificate", "/api", with(ca, pki.Leaf{CommonName: "s", Server: true}), ""},
		{"a token", "/api", header("Authorization", "Bearer "+made.Status.Token), "system:serviceaccount:x:robot"},
		{"a bad token, for health", "/livez", header("Authorization", "Bearer x"), ""},
		{"a password", "/api", header("Authorization", "Basic eDp5"), ""},
		{"a huge token", "/api", header("Authorization", "Bearer "+strings.Repeat("x", maxToken+1)), ""},
		{"a browser's token", "/api", browser("v5.channel.k8s.io, " + encoded), "system:serviceaccount:x:robot"},
		{"a browser's token alone", "/api", browser(encoded), ""},
	}
	for _, c := range cases {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		c.prepare(r)
		got, err := a.Authenticate(r)
		if got.Name != c.want || (c.want == "") != errors.Is(err, ErrRefused) {
			t.Errorf("%s: %q %v, want %q", c.name, got.Name, err, c.want)
		}
	}
}

func TestCertificateRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := pki.Open(t.TempDir(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := ca.Issue(pki.Leaf{CommonName: "alice", Client: true, Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		a := New(Config{ClientCAs: ca.Pool(), Now: time.Now})
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.Leaf}}
		for _, want := range []bool{true, true, false} {
			if _, err := a.Authenticate(r); (err == nil) != want {
				t.Errorf("after %s: %v", time.Until(leaf.Leaf.NotAfter), err)
			}
			time.Sleep(31 * time.Minute)
		}
	})
}

func TestDiscovery(t *testing.T) {
	tokens := newTokens(t, world())
	served, err := tokens.Discovery("https://10.0.0.1:6443")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	served[KeysPath].ServeHTTP(w, httptest.NewRequest(http.MethodGet, KeysPath, nil))
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 || set.Keys[0]["kid"] != tokens.sign.ID || len(set.Keys[0]["x"]) != 43 {
		t.Errorf("keys %s %v", w.Body, err)
	}
	w = httptest.NewRecorder()
	served[ConfigurationPath].ServeHTTP(w, httptest.NewRequest(http.MethodGet, ConfigurationPath, nil))
	if !strings.Contains(w.Body.String(), `"jwks_uri":"https://10.0.0.1:6443/openid/v1/jwks"`) {
		t.Errorf("configuration %s", w.Body)
	}
}
