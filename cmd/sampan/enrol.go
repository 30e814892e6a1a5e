package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
)

// Limits of joining.
const (
	handshakeTimeout = 10 * time.Second
	// signedWithin is how long a certificate towards the API server may take: it is
	// approved and signed by controllers, without a person.
	signedWithin = time.Minute
)

// authorityOf asks the server at addr for the certificate of its authority, which
// must have the hash, and gives it as PEM. Nothing else of the server is believed.
func authorityOf(ctx context.Context, addr, hash string) ([]byte, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("server %q: want HOST:PORT: %w", addr, err)
	}
	var found *x509.Certificate
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: handshakeTimeout}, Config: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it, once it knows by which authority
		VerifyConnection: func(s tls.ConnectionState) error {
			found, err = pinned(s.PeerCertificates, host, hash)
			return err
		},
	}}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", addr, err)
	}
	conn.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: found.Raw}), nil
}

// pinned finds the authority with the hash in what a server for host has shown, and
// checks that the server's own certificate is of it.
func pinned(shown []*x509.Certificate, host, hash string) (*x509.Certificate, error) {
	for _, c := range shown[1:] {
		if !c.IsCA || pki.Hash(c) != hash {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
		return c, err
	}
	return nil, fmt.Errorf("its authority is not the one with the hash %s: a wrong server, or a wrong --ca-hash", hash)
}

// request is a certificate that a node asks for.
type request struct {
	transport client.Transport
	signer    string
	usage     certificatesv1.KeyUsage
	node      string
	// groups are those that the certificate is to say.
	groups []string
	dns    []string
	ips    []net.IP
}

// issue asks, and waits until it is signed.
func (r request) issue(ctx context.Context) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: identity.NodePrefix + r.node, Organization: r.groups},
		DNSNames: r.dns, IPAddresses: r.ips,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	asked, err := client.CertificateSigningRequests.Create(ctx, r.transport, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: r.signer, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, r.usage},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("ask for a certificate: %w", err)
	}
	signed, err := r.await(ctx, asked.Name)
	if err != nil {
		return nil, fmt.Errorf("certificate request %q: %w", asked.Name, err)
	}
	block, _ := pem.Decode(signed)
	if block == nil {
		return nil, fmt.Errorf("certificate request %q was answered without a certificate", asked.Name)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate request %q: %w", asked.Name, err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("certificate request %q was answered with a certificate for another key", asked.Name)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// await returns the certificate of a request once it is signed.
func (r request) await(ctx context.Context, name string) ([]byte, error) {
	var signed []byte
	err := await(ctx, client.CertificateSigningRequests, r.transport, name, func(c *certificatesv1.CertificateSigningRequest) (bool, error) {
		for _, condition := range c.Status.Conditions {
			if condition.Type != certificatesv1.CertificateApproved {
				return false, fmt.Errorf("%s: %s", condition.Type, condition.Message)
			}
		}
		signed = c.Status.Certificate
		return len(signed) > 0, nil
	})
	return signed, err
}

// await watches one object until done says so. Watches that end are opened again.
func await[T client.Object](ctx context.Context, kind client.Resource[T], t client.Transport, name string, done func(T) (bool, error)) error {
	initial := true
	for {
		w, err := kind.Watch(ctx, t, "", metav1.ListOptions{
			FieldSelector:     fields.OneTermEqualSelector("metadata.name", name).String(),
			SendInitialEvents: &initial, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
		})
		if err != nil {
			return err
		}
		found, err := hear(ctx, w, done)
		w.Stop()
		if found || err != nil {
			return err
		}
		select { // a server that hangs up at once is not asked at once
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// hear says whether an event of w is what done waits for; false: the watch ended.
func hear[T client.Object](ctx context.Context, w watch.Interface, done func(T) (bool, error)) (bool, error) {
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return false, nil
			}
			if obj, is := e.Object.(T); is {
				if found, err := done(obj); found || err != nil {
					return found, err
				}
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// kept is a certificate that outlives the process, in a file with its key.
type kept struct {
	path string
	ask  func() (*tls.Certificate, error)
	// unfit, which may be nil, says that another is wanted than the one in the file, which
	// is good as long as there is none.
	unfit func(*x509.Certificate) bool
	// read is set once the file has been tried.
	read bool
}

// issue is for a pki.Holder: the first time it gives what is in the file, if that
// is still good, and from then on a new one.
func (k *kept) issue() (*tls.Certificate, error) {
	var old *tls.Certificate
	if !k.read {
		k.read = true
		old = k.load()
		if old != nil && (k.unfit == nil || !k.unfit(old.Leaf)) {
			return old, nil
		}
	}
	leaf, err := k.ask()
	switch {
	case err != nil && old != nil:
		return old, nil // whoever signs is of an earlier version, say
	case err != nil:
		return nil, err
	}
	certificate, key, err := pki.Encode(leaf)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(k.path, append(certificate, key...), 0o600); err != nil {
		return nil, fmt.Errorf("keep certificate: %w", err)
	}
	return leaf, nil
}

// ofFormer says whether a node's certificate is one of before there was a group for our
// agents. It is good as long as the cluster lets all nodes do what those do.
func ofFormer(leaf *x509.Certificate) bool {
	return !slices.Contains(leaf.Subject.Organization, identity.Agents)
}

// load is the certificate in the file; nil when there is none that is still good.
func (k *kept) load() *tls.Certificate {
	leaf, err := tls.LoadX509KeyPair(k.path, k.path)
	if err != nil || time.Now().After(leaf.Leaf.NotAfter) {
		return nil
	}
	return &leaf
}
