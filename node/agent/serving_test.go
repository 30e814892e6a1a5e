package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// selfSigned is a certificate of its own, as files hold it.
func selfSigned(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// shake is who a server says that it is, the version and the suite agreed on.
func shake(server, client *tls.Config) (string, tls.ConnectionState, error) {
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		defer there.Close()
		_ = tls.Server(there, server).Handshake() // what is wrong, the client sees
	}()
	client.InsecureSkipVerify = true
	c := tls.Client(here, client)
	if err := c.Handshake(); err != nil {
		return "", tls.ConnectionState{}, err
	}
	state := c.ConnectionState()
	return state.PeerCertificates[0].Subject.CommonName, state, nil
}

// TestServingFiles: whose certificate is shown to whom, before and after the files change.
func TestServingFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	put := func(path string, content []byte) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := errors.Join(os.WriteFile(next, content, 0o600), os.Rename(next, path)); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := selfSigned(t, "first")
	put(certFile, cert)
	put(keyFile, key)
	ours, err := tls.X509KeyPair(selfSigned(t, "cluster"))
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cfg := Config{Log: slog.New(slog.NewTextHandler(&said, nil)), TLS: &tls.Config{MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &ours, nil }}}
	k := settings.Complete(settings.Kubelet{TLSCertFile: certFile, TLSPrivateKeyFile: keyFile})
	if err := cfg.secure(&k); err != nil {
		t.Fatal(err)
	}
	shows := func(when, stranger string) {
		t.Helper()
		for want, client := range map[string]*tls.Config{stranger: {}, "cluster": {NextProtos: []string{"http/1.1", pki.Protocol}}} {
			if got, _, err := shake(cfg.TLS, client); err != nil || got != want {
				t.Errorf("%s: shown %q, want %q: %v", when, got, want, err)
			}
		}
	}
	shows("at first", "first")
	cert, key = selfSigned(t, "second")
	put(certFile, cert)
	shows("with the key of before", "first")
	shows("and again", "first")
	if n := strings.Count(said.String(), "that of before is shown"); n != 1 {
		t.Errorf("told %d times of files that don't fit", n)
	}
	put(keyFile, key)
	shows("with both", "second")
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	shows("without the key", "second")
	if err := (&Config{TLS: &tls.Config{}, Log: cfg.Log}).secure(&k); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a start without the key: %v", err)
	}
}

// TestServingTLS: versions and suites that the configuration leaves.
func TestServingTLS(t *testing.T) {
	pair, err := tls.X509KeyPair(selfSigned(t, "node"))
	if err != nil {
		t.Fatal(err)
	}
	const gcm, other = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	cases := []struct {
		min    string
		suites []string
		client *tls.Config
		ok     bool
	}{
		{"", nil, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"VersionTLS13", nil, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{"VersionTLS13", nil, &tls.Config{}, true},
		{"", nil, &tls.Config{MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}, false},
		{"VersionTLS11", nil, &tls.Config{MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}, true},
		{"", []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{gcm}}, true},
		{"", []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{other}}, false},
	}
	for _, c := range cases {
		cfg := Config{TLS: &tls.Config{Certificates: []tls.Certificate{pair}}}
		k := settings.Complete(settings.Kubelet{TLSMinVersion: c.min, TLSCipherSuites: c.suites})
		if err := cfg.secure(&k); err != nil {
			t.Fatal(err)
		}
		name, state, err := shake(cfg.TLS, c.client)
		if (err == nil) != c.ok || c.ok && name != "node" {
			t.Errorf("least %q, suites %v: %q version %x: %v", c.min, c.suites, name, state.Version, err)
		}
	}
}
