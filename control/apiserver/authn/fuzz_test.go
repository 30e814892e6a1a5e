package authn

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sampan-dev/sampan/internal/frugal"
	"github.com/sampan-dev/sampan/internal/pki"
)

// FuzzCertificate: of all that can be read as a certificate only the one that the
// authority has issued is somebody's, whatever the headers say.
func FuzzCertificate(f *testing.F) {
	ca, err := pki.Open(f.TempDir(), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	other, err := pki.Temporary(time.Now)
	if err != nil {
		f.Fatal(err)
	}
	leaf := pki.Leaf{CommonName: "alice", Organizations: []string{"staff"}, Client: true}
	good, err := ca.Issue(leaf)
	if err != nil {
		f.Fatal(err)
	}
	foreign, err := other.Issue(leaf)
	if err != nil {
		f.Fatal(err)
	}
	server, err := ca.Issue(pki.Leaf{CommonName: "alice", Server: true})
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range []*tls.Certificate{good, foreign, server} {
		f.Add(c.Certificate[0], "")
	}
	f.Add(good.Certificate[0], "mallory")
	a := New(Config{ClientCAs: ca.Pool(), FrontProxy: &FrontProxy{CAs: other.Pool(), Names: []string{"front"}}})
	f.Fuzz(func(t *testing.T, der []byte, claimed string) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		r.Header.Set(remoteUser, claimed)
		frugal.Run(t, len(der), func() {
			who, err := a.Authenticate(r)
			switch mine := bytes.Equal(cert.Raw, good.Certificate[0]); {
			case mine && (err != nil || who.Name != "alice"):
				t.Errorf("the issued certificate is %+v, %v", who, err)
			case !mine && !errors.Is(err, ErrRefused):
				t.Errorf("%q is %+v, %v", cert.Subject, who, err)
			}
		})
	})
}

// FuzzHeaders: headers make nobody of those who have no credentials, and a token
// among the WebSocket protocols is taken out of them.
func FuzzHeaders(f *testing.F) {
	encoded := websocketToken + base64.RawURLEncoding.EncodeToString([]byte("abcdef.0123456789abcdef"))
	f.Add("Bearer x", "", "admin")
	f.Add("", encoded+", v5.channel.k8s.io", "")
	f.Add("", encoded+","+encoded, "")
	f.Add("bearer  ", websocketToken+"%", "\x00")
	f.Add("", "a,,"+websocketToken, "")
	o := world()
	f.Fuzz(func(t *testing.T, authorization, protocols, claimed string) {
		a := New(Config{Tokens: fuzzTokens(t, o), Objects: o, FrontProxy: &FrontProxy{Names: []string{""}}})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api", nil)
		r.TLS = &tls.ConnectionState{}
		r.Header.Set("Upgrade", "WebSocket")
		r.Header["Authorization"] = []string{authorization}
		r.Header["Sec-Websocket-Protocol"] = []string{protocols}
		r.Header[remoteUser] = []string{claimed}
		frugal.Run(t, len(authorization)+len(protocols), func() {
			if who, err := a.Authenticate(r); !errors.Is(err, ErrRefused) {
				t.Errorf("somebody is %+v, %v", who, err)
			}
		})
		token, given, err := bearer(r)
		if authorization == "" && given && err == nil && token != "" {
			t.Errorf("a token %q is left in %q", token, r.Header.Values("Sec-Websocket-Protocol"))
		}
	})
}

// FuzzClaims: a token that is signed is its service account's if that exists, and
// what it is bound to, whatever else it says; otherwise nobody's.
func FuzzClaims(f *testing.F) {
	o := world()
	for _, claims := range []string{
		`{"iss":"` + issuer + `","aud":["` + issuer + `"],"exp":99999999999,"sub":"system:serviceaccount:x:robot","kubernetes.io":{"namespace":"x","serviceaccount":{"name":"robot","uid":"uid-1"},"pod":{"name":"web","uid":"uid-1"}}}`,
		`{"iss":"` + issuer + `","aud":"` + issuer + `","exp":99999999999,"sub":"system:serviceaccount:x:none","kubernetes.io":{"namespace":"x","serviceaccount":{"name":"none"}}}`,
		`{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"x","kubernetes.io/serviceaccount/secret.name":"s"}`,
		`{"exp":1e400,"nbf":"x","aud":{"a":[]}}`, `[]`, `{"iss":"` + issuer + `","kubernetes.io":null}`,
	} {
		f.Add(`{"alg":"ES256","typ":"JWT"}`, claims)
	}
	f.Add(`{"alg":"none"}`, `{}`)
	f.Add(`{"alg":["ES256"],"crit":["x"],"zip":"DEF"}`, `{}`)
	f.Fuzz(func(t *testing.T, header, claims string) {
		tokens := fuzzTokens(t, o)
		encode := base64.RawURLEncoding.EncodeToString
		if rest, ok := strings.CutPrefix(header, "{"); ok {
			header = `{"kid":"` + tokens.sign.ID + `",` + rest
		}
		signed := encode([]byte(header)) + "." + encode([]byte(claims))
		signature, err := jwt.SigningMethodES256.Sign(signed, tokens.sign.Key)
		if err != nil {
			t.Fatal(err)
		}
		a := New(Config{Tokens: tokens, Objects: o})
		frugal.Run(t, len(signed), func() {
			v, err := a.ByToken(t.Context(), signed+"."+encode(signature), nil)
			if err == nil && v.User.Name != "system:serviceaccount:x:robot" {
				t.Errorf("%s %s is %+v", header, claims, v)
			}
			if err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("%s %s: %v", header, claims, err)
			}
		})
	})
}
