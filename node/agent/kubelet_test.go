package agent

import (
	"bytes"
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
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whose certificates a configuration's clientCAFile takes, beside the cluster's own.
func TestClientAuthorities(t *testing.T) {
	authority := func(name string) (*x509.Certificate, []byte) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	ours, _ := authority("ours")
	theirs, text := authority("theirs")
	stranger, other := authority("stranger")
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "bad.crt")
	for path, content := range map[string][]byte{good: text, bad: []byte("nothing")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given := x509.NewCertPool()
	given.AddCert(ours)
	var said bytes.Buffer
	cfg := Config{ClientCAs: given, Log: slog.New(slog.NewTextHandler(&said, nil))}
	if err := cfg.admit(good); err != nil {
		t.Fatal(err)
	}
	known := func(when string, want map[*x509.Certificate]bool) {
		t.Helper()
		for cert, known := range want {
			_, err := cert.Verify(x509.VerifyOptions{Roots: cfg.callers.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			if (err == nil) != known {
				t.Errorf("%s: %s: %v", when, cert.Subject.CommonName, err)
			}
		}
	}
	known("at first", map[*x509.Certificate]bool{ours: true, theirs: true, stranger: false})
	put := func(content []byte) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := errors.Join(os.WriteFile(next, content, 0o600), os.Rename(next, good)); err != nil {
			t.Fatal(err)
		}
	}
	put(other)
	changed := map[*x509.Certificate]bool{ours: true, theirs: false, stranger: true}
	known("after a change", changed)
	put([]byte("nothing"))
	known("with nothing in it", changed)
	known("and again", changed)
	if n := strings.Count(said.String(), "has no certificates"); n != 1 {
		t.Errorf("told %d times of a file with nothing in it", n)
	}
	if err := os.Remove(good); err != nil {
		t.Fatal(err)
	}
	known("without the file", changed)
	c, err := cfg.callers.ask(&tls.Config{ClientCAs: given}).GetConfigForClient(nil)
	if err != nil || !c.ClientCAs.Equal(cfg.callers.now()) || c.ClientCAs.Equal(given) {
		t.Errorf("clients are not asked for what counts: %v", err)
	}
	if _, err := theirs.Verify(x509.VerifyOptions{Roots: given}); err == nil {
		t.Error("the pool that was given is changed")
	}
	for path, want := range map[string]string{bad: "has no certificates", filepath.Join(dir, "none"): "no such file"} {
		if err := (&Config{}).admit(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
