package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-dev/sampan/internal/identity"
)

// TokenKey signs service-account tokens.
type TokenKey struct {
	// ID names the key in a token's header: the SHA-256 of its public half,
	// base64url, as upstream's key ids are.
	ID  string
	Key *ecdsa.PrivateKey
}

// OpenTokenKey loads the key at path or makes it there. Its ID is kept beside it, as
// ".print": a key that is gone, or is another, ends every token that was signed before,
// which nobody would be told, so it is an error.
func OpenTokenKey(path string) (*TokenKey, error) {
	printed := strings.TrimSuffix(path, ".key") + ".print"
	kept, err := os.ReadFile(printed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open token key: %w", err)
	}
	key, err := ReadKey(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(kept) > 0:
		return nil, fmt.Errorf("the key that signs service accounts' tokens, %q, is gone: %s", path, lostTokenKey(printed))
	case errors.Is(err, fs.ErrNotExist):
		key, err = createTokenKey(path)
	case err != nil:
		err = fmt.Errorf("%w: %s", err, lostTokenKey(printed))
	}
	if err != nil {
		return nil, fmt.Errorf("open token key: %w", err)
	}
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("open token key: %w", err)
	}
	if len(kept) > 0 && string(kept) != id {
		return nil, fmt.Errorf("%q is not the key that has signed service accounts' tokens: %s", path, lostTokenKey(printed))
	}
	if len(kept) == 0 {
		if err := writeFile(printed, []byte(id)); err != nil {
			return nil, fmt.Errorf("open token key: %w", err)
		}
	}
	return &TokenKey{ID: id, Key: key}, nil
}

// lostTokenKey is what a person can do about it.
func lostTokenKey(printed string) string {
	return fmt.Sprintf("bring it back from a backup, or remove %q and the key for a new one, which ends every token there is", printed)
}

func createTokenKey(path string) (*ecdsa.PrivateKey, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, WriteKey(path, key)
}

func keyID(public *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("identify key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// ServerLeaf is the API server's own certificate: every name under which pods
// and people reach it. domain is the cluster's ("cluster.local"), extra holds
// host names or addresses (the service address, the machine's own).
func ServerLeaf(domain string, extra []string) Leaf {
	l := Leaf{
		CommonName: "kube-apiserver",
		Server:     true,
		Chain:      true,
		DNSNames: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc." + domain, "localhost",
		},
		IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, name := range extra {
		if ip := net.ParseIP(name); ip != nil {
			l.IPs = append(l.IPs, ip)
			continue
		}
		l.DNSNames = append(l.DNSNames, name)
	}
	return l
}

// NodeLeaf is the certificate of a node whose agent is ours: with it the agent calls the
// API server as the node, and asks other nodes for images.
func NodeLeaf(node string) Leaf {
	return Leaf{CommonName: identity.NodePrefix + node, Organizations: []string{identity.Nodes, identity.Agents}, Client: true}
}

// KubeletLeaf is the certificate with which a node serves the kubelet API. names holds
// the node's host names and addresses.
func KubeletLeaf(node string, names []string) Leaf {
	l := Leaf{CommonName: identity.NodePrefix + node, Organizations: []string{identity.Nodes}, Server: true, DNSNames: []string{node}}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			l.IPs = append(l.IPs, ip)
			continue
		}
		l.DNSNames = append(l.DNSNames, name)
	}
	return l
}
