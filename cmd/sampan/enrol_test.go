package main

import (
	"crypto/tls"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
)

// leafOf is a certificate that was made some time ago.
func leafOf(t *testing.T, ago time.Duration) *tls.Certificate {
	t.Helper()
	authority, err := pki.Temporary(func() time.Time { return time.Now().Add(-ago) })
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.Issue(pki.NodeLeaf("n"))
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// A node that comes back shows the certificate that it has; after a year off it says what
// to type, and with a token it gets a new one, which it keeps.
func TestNodeComesBack(t *testing.T) {
	const year = 365 * 24 * time.Hour
	path := filepath.Join(t.TempDir(), "client.pem")
	keep := func(leaf *tls.Certificate) {
		t.Helper()
		certificate, key, err := pki.Encode(leaf)
		if err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.Write(path, append(certificate, key...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	without := func() (*tls.Certificate, error) { return (&member{cluster: &cluster{}}).askClient(t.Context(), "") }

	good := leafOf(t, time.Hour)
	keep(good)
	if got, err := (&kept{path: path, ask: without}).issue(); err != nil || !got.Leaf.Equal(good.Leaf) {
		t.Errorf("with a good certificate: %v", err)
	}
	keep(leafOf(t, year))
	_, err := (&kept{path: path, ask: without}).issue()
	if err == nil || !strings.Contains(err.Error(), "no certificate that is still good: type what sampan token create prints") {
		t.Errorf("after a year, without a token: %v", err)
	}
	fresh := leafOf(t, 0)
	if got, err := (&kept{path: path, ask: func() (*tls.Certificate, error) { return fresh, nil }}).issue(); err != nil || !got.Leaf.Equal(fresh.Leaf) {
		t.Errorf("after a year, with a token: %v", err)
	}
	if got, err := (&kept{path: path, ask: without}).issue(); err != nil || !got.Leaf.Equal(fresh.Leaf) {
		t.Errorf("at the start after that: %v", err)
	}
}

// A certificate of before there was a group for our agents is good as long as the cluster
// takes it; with a token a machine gets another at once, if anybody gives it one.
func TestFormerCertificate(t *testing.T) {
	authority, err := pki.Temporary(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	before := pki.NodeLeaf("n")
	before.Organizations = []string{identity.Nodes}
	path := filepath.Join(t.TempDir(), "client.pem")
	refused := errors.New("not signed")
	fresh, err := authority.Issue(pki.NodeLeaf("n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		leaf        pki.Leaf
		token, used bool
		asked       error
	}{{before, false, true, nil}, {before, true, false, nil}, {before, true, true, refused}, {pki.NodeLeaf("n"), true, true, nil}} {
		leaf, err := authority.Issue(c.leaf)
		if err != nil {
			t.Fatal(err)
		}
		certificate, key, err := pki.Encode(leaf)
		if err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.Write(path, append(certificate, key...), 0o600); err != nil {
			t.Fatal(err)
		}
		k := &kept{path: path, ask: func() (*tls.Certificate, error) { return fresh, c.asked }}
		if c.token {
			k.unfit = ofFormer
		}
		got, err := k.issue()
		if err != nil {
			t.Fatal(err)
		}
		if used := got.Leaf.Equal(leaf.Leaf); used != c.used {
			t.Errorf("%v, token %v, %v: used %v, want %v", c.leaf.Organizations, c.token, c.asked, used, c.used)
		}
	}
}
