package delegate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// reviewer is an API server that knows one token and one rule.
type reviewer struct {
	*clienttest.Memory
	asked int
	down  bool
}

func (r *reviewer) Create(_ context.Context, _ target.Target, obj runtime.Object, _ metav1.CreateOptions) (runtime.Object, error) {
	r.asked++
	if r.down {
		return nil, errors.New("connection refused")
	}
	switch review := obj.(type) {
	case *authenticationv1.TokenReview:
		out := review.DeepCopy()
		out.Status.Authenticated = review.Spec.Token == "good"
		out.Status.User = authenticationv1.UserInfo{Username: "ann", Groups: []string{"readers"}, Extra: map[string]authenticationv1.ExtraValue{"scope": {"x"}}}
		return out, nil
	case *authorizationv1.SubjectAccessReview:
		out := review.DeepCopy()
		a := review.Spec.ResourceAttributes
		out.Status.Allowed = slices.Contains(review.Spec.Groups, "readers") && a.Verb == "get" && a.Subresource == "stats" && a.Name == "n1" && review.Spec.Extra["scope"][0] == "x"
		return out, nil
	}
	return nil, errors.New("what is this?")
}

func request(token string) *http.Request {
	r := &http.Request{Header: http.Header{}}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r.WithContext(context.Background())
}

func TestTokensAndRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &reviewer{Memory: clienttest.NewMemory()}
		d := New(Config{Transport: server, NodeName: "n1", Tokens: true, TokenFor: 2 * time.Minute, AllowedFor: 5 * time.Minute, DeniedFor: 30 * time.Second})
		for range 3 {
			who, ok := d.Authenticate(request("good"))
			if !ok || who.Name != "ann" || who.Extra["scope"][0] != "x" {
				t.Fatalf("%+v %v", who, ok)
			}
			if !d.Allowed(t.Context(), who, "get", "stats") || d.Allowed(t.Context(), who, "create", "exec") {
				t.Error("the rule doesn't hold")
			}
			if _, ok := d.Authenticate(request("bad")); ok {
				t.Error("a bad token is taken")
			}
		}
		if server.asked != 4 {
			t.Errorf("the server was asked %d times, want once each", server.asked)
		}
		server.down = true
		time.Sleep(time.Minute)
		who, ok := d.Authenticate(request("good"))
		if !ok || !d.Allowed(t.Context(), who, "get", "stats") || d.Allowed(t.Context(), who, "create", "exec") {
			t.Error("what was answered doesn't outlive the server")
		}
		time.Sleep(10 * time.Minute)
		if _, ok := d.Authenticate(request("good")); ok || d.Allowed(t.Context(), who, "get", "stats") {
			t.Error("old answers hold for ever")
		}
		if _, ok := d.Authenticate(request("")); ok {
			t.Error("nobody is let in")
		}
		if !d.Allowed(t.Context(), identity.Identity{Groups: []string{identity.Masters}}, "create", "exec") {
			t.Error("masters need a server")
		}
	})
}

func TestAnonymous(t *testing.T) {
	d := New(Config{Transport: &reviewer{Memory: clienttest.NewMemory()}, Tokens: true, Anonymous: true})
	if who, ok := d.Authenticate(request("")); !ok || who.Name != identity.Anonymous {
		t.Errorf("%+v %v", who, ok)
	}
	if _, ok := d.Authenticate(request("bad")); ok {
		t.Error("a bad token is anonymous")
	}
}

func TestCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(usage x509.ExtKeyUsage, name string) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"ops"}}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}, IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ours, server, foreign := issue(x509.ExtKeyUsageClientAuth, "bob"), issue(x509.ExtKeyUsageServerAuth, "srv"), issue(x509.ExtKeyUsageClientAuth, "eve")
	pool := x509.NewCertPool()
	pool.AddCert(ours)
	pool.AddCert(server)
	d := New(Config{Transport: &reviewer{Memory: clienttest.NewMemory()}, ClientCAs: func() *x509.CertPool { return pool }})
	for _, c := range []struct {
		cert *x509.Certificate
		ok   bool
	}{{ours, true}, {server, false}, {foreign, false}} {
		r := request("")
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.cert}}
		who, ok := d.Authenticate(r)
		if ok != c.ok || (ok && (who.Name != "bob" || !who.In("ops") || !who.In(identity.Authenticated))) {
			t.Errorf("%s: %+v %v", c.cert.Subject.CommonName, who, ok)
		}
	}
}
