package apiserver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/internal/pki"
)

// authority makes one, and what files say of it.
func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.Temporary(time.Now)
	must(t, err)
	return a
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	must(t, os.WriteFile(path, data, 0o600))
	return path
}

// clientOf is a client whose certificate another authority has made. It shows that
// whether or not the server has named the authority.
func (w *world) clientOf(a *pki.Authority, name string) *http.Client {
	w.t.Helper()
	leaf, err := a.Issue(pki.Leaf{CommonName: name, Client: true})
	must(w.t, err)
	show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil }
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.ca.Pool(), GetClientCertificate: show}, ForceAttemptHTTP2: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// who asks the server as whom it takes a client.
func (w *world) who(c *http.Client, headers ...string) (int, string) {
	w.t.Helper()
	var got authenticationv1.SelfSubjectReview
	code, text := w.do(c, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews",
		&authenticationv1.SelfSubjectReview{}, &got, headers...)
	if code != http.StatusCreated {
		return code, text
	}
	return code, got.Status.UserInfo.Username
}

// asked are the authorities whose certificates the server asks a new client for.
func (w *world) asked() (names []string) {
	w.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), &tls.Config{RootCAs: w.ca.Pool(),
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			for _, raw := range r.AcceptableCAs {
				var name pkix.RDNSequence
				if _, err := asn1.Unmarshal(raw, &name); err != nil {
					return nil, err
				}
				names = append(names, name.String())
			}
			return &tls.Certificate{}, nil
		}})
	must(w.t, err)
	must(w.t, conn.Close())
	return names
}

// Clients are told whose certificates count, of clients and of front proxies, also
// when the files have changed: those that have several choose by it.
func TestAuthoritiesAreNamed(t *testing.T) {
	dir := t.TempDir()
	first, second := authority(t), authority(t)
	clients := write(t, filepath.Join(dir, "clients.crt"), first.PEM())
	trust, err := OpenTrust(TrustFiles{ClientCA: clients}, slog.New(slog.DiscardHandler))
	must(t, err)
	w := startWith(t, func(c *Config) { c.Trust = trust })
	own := len(startWith(t, func(*Config) {}).asked())
	if got := w.asked(); own != 2 || len(got) != own+1 {
		t.Errorf("asked for certificates of %q, want one more than %d", got, own)
	}
	write(t, clients, slices.Concat(first.PEM(), second.PEM()))
	if !trust.Reload() {
		t.Fatal("nothing has changed")
	}
	w.trustAnew(t.Context())
	if got := w.asked(); len(got) != own+2 {
		t.Errorf("asked for certificates of %q, want two more than %d", got, own)
	}
}

// Files of authorities are followed: who is certified by a new one comes in, who is
// certified by one that is gone does not, not even on a connection that exists, and
// servers of aggregated APIs are told. Broken files change nothing.
func TestTrustIsFollowed(t *testing.T) {
	dir := t.TempDir()
	first, second, proxies := authority(t), authority(t), authority(t)
	clients := write(t, filepath.Join(dir, "clients.crt"), first.PEM())
	fronts := write(t, filepath.Join(dir, "fronts.crt"), first.PEM())
	trust, err := OpenTrust(TrustFiles{ClientCA: clients, RequestHeaderCA: fronts, RequestHeaderNames: []string{"front"}}, slog.New(slog.DiscardHandler))
	must(t, err)
	w := startWith(t, func(c *Config) { c.Trust = trust })
	expect := func(c *http.Client, code int, want string, headers ...string) {
		t.Helper()
		if got, name := w.who(c, headers...); got != code || code == http.StatusCreated && name != want {
			t.Errorf("%d %s, want %d %s", got, name, code, want)
		}
	}
	a, b, front := w.clientOf(first, "ann"), w.clientOf(second, "ben"), w.clientOf(proxies, "front")
	expect(a, http.StatusCreated, "ann")
	expect(b, http.StatusUnauthorized, "")
	expect(front, http.StatusUnauthorized, "", "X-Remote-User", "cat")
	expect(w.as("own"), http.StatusCreated, "own")

	change := func() {
		t.Helper()
		if !trust.Reload() {
			t.Fatal("nothing has changed")
		}
		w.trustAnew(t.Context())
	}
	write(t, clients, slices.Concat(second.PEM(), []byte("\n")))
	write(t, fronts, proxies.PEM())
	change()
	expect(a, http.StatusUnauthorized, "")
	expect(b, http.StatusCreated, "ben")
	expect(front, http.StatusCreated, "cat", "X-Remote-User", "cat")
	expect(w.clientOf(proxies, "another"), http.StatusUnauthorized, "", "X-Remote-User", "cat")
	expect(w.as("own"), http.StatusCreated, "own")

	var told corev1.ConfigMap
	if code, text := w.do(w.as("root", "system:masters"), "GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", nil, &told); code != http.StatusOK {
		t.Fatal(code, text)
	}
	if got := told.Data["client-ca-file"]; !strings.Contains(got, string(second.PEM())) || !strings.Contains(got, string(w.ca.PEM())) || strings.Contains(got, string(first.PEM())) {
		t.Errorf("told of clients:\n%s", got)
	}
	if got := told.Data["requestheader-client-ca-file"]; !strings.Contains(got, string(proxies.PEM())) {
		t.Errorf("told of proxies:\n%s", got)
	}
	if got := told.Data["requestheader-allowed-names"]; got != `["front-proxy-client","front"]` {
		t.Errorf("told of names: %s", got)
	}

	write(t, clients, []byte("no certificate"))
	if trust.Reload() {
		t.Error("a broken file was taken")
	}
	expect(b, http.StatusCreated, "ben")
}

// A certificate for other names is shown to who asks for them, and another in its
// place when the files change; all others see the cluster's own.
func TestOtherNamesAreShown(t *testing.T) {
	dir := t.TempDir()
	ca := authority(t)
	certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	issue := func() []byte {
		t.Helper()
		leaf, err := ca.Issue(pki.Leaf{CommonName: "api.example", DNSNames: []string{"api.example"}, Server: true})
		must(t, err)
		certPEM, keyPEM, err := pki.Encode(leaf)
		must(t, err)
		write(t, certificate, certPEM)
		write(t, key, keyPEM)
		block, _ := pem.Decode(certPEM)
		return block.Bytes
	}
	first := issue()
	trust, err := OpenTrust(TrustFiles{Shown: []string{certificate + "," + key, certificate + "," + key + ":*.wild.example"}}, slog.New(slog.DiscardHandler))
	must(t, err)
	w := startWith(t, func(c *Config) { c.Trust = trust })
	shown := func(name string) *x509.Certificate {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // it is looked at
		must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	for name, other := range map[string]bool{"api.example": true, "a.wild.example": true, "a.b.wild.example": false, "kubernetes.default.svc": false, "": false} {
		if got := shown(name); bytes.Equal(got.Raw, first) != other {
			t.Errorf("for %q: %s", name, got.Subject)
		}
	}
	second := issue()
	if !trust.Reload() {
		t.Fatal("nothing has changed")
	}
	if got := shown("api.example"); !bytes.Equal(got.Raw, second) {
		t.Error("the old certificate is shown")
	}
	for _, bad := range []TrustFiles{{ClientCA: key}, {ClientCA: filepath.Join(dir, "none")}, {Shown: []string{certificate}}, {Shown: []string{certificate + "," + certificate}}} {
		if _, err := OpenTrust(bad, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%+v is fine", bad)
		}
	}
}

// Who asks about a token and leaves out what he asks is answered by its name.
func TestReviewWithoutKind(t *testing.T) {
	w := start(t)
	ask := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "abcdef.0123456789abcdef"}}
	ask.APIVersion = "authentication.k8s.io/v1"
	var got authenticationv1.TokenReview
	code, text := w.do(w.as("admin", "system:masters"), "POST", "/apis/authentication.k8s.io/v1/tokenreviews", ask, &got)
	if code != 201 || got.Kind != "TokenReview" || got.Status.Error == "" {
		t.Errorf("%d %s", code, text)
	}
}
