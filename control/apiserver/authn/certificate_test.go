package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/asn1"
)

// A subject may name the user's UID, once.
func TestUIDOfACertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		uids []string
		want string
		ok   bool
	}{
		"none":  {nil, "", true},
		"one":   {[]string{"u1"}, "u1", true},
		"two":   {[]string{"u1", "u2"}, "", false},
		"empty": {[]string{""}, "", false},
	} {
		subject := pkix.Name{CommonName: "alice"}
		for _, uid := range c.uids {
			subject.ExtraNames = append(subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.X509UID(), Value: uid})
		}
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotBefore: time.Now().Add(-time.Minute),
			NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
			&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}}, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(leaf)
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		who, err := New(Config{ClientCAs: roots}).Authenticate(r)
		if (err == nil) != c.ok || who.UID != c.want {
			t.Errorf("%s: %+v %v", name, who, err)
		}
	}
}
