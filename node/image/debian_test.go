package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A registry that nobody here wrote, with a certificate of its own and passwords:
// Debian's docker-registry.
func TestDockerRegistry(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := free.Addr().String()
	free.Close()
	certificate, key := selfSigned(t)
	config := write("config.yml", fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {inmemory: {}}\nhttp: {addr: %q, tls: {certificate: %s, key: %s}}\nauth: {htpasswd: {realm: test, path: %s}}\n",
		host, write("cert.pem", certificate), write("key.pem", key),
		write("htpasswd", "me:$2b$04$/yz13OMI7riu75coW4.8M.PfDYURqt8hLpw2jGmro7Ka4ACP/h/3W\n"))) // "secret"
	write(strings.Replace("certs.d/"+host, ":", "_", 1)+"_/hosts.toml", "server = \"https://"+host+"\"\nca = \"ca.crt\"\n")
	write(strings.Replace("certs.d/"+host, ":", "_", 1)+"_/ca.crt", certificate)
	server := exec.Command("docker-registry", "serve", config)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill() // it has nothing to say
		_ = server.Wait()
	}()
	awaitListener(t, host)

	from, to := open(t), open(t)
	ref := host + "/team/app:1"
	img := build(t, from, ref, layerTar(t, entry{name: "f", body: strings.Repeat("content", 1000)}))
	me := TransferOptions{HostDirs: []string{filepath.Join(dir, "certs.d")}, Auth: Auth{Username: "me", Password: "secret"}}
	if _, err := from.Push(t.Context(), ref, me); err != nil {
		t.Fatal("push: ", err)
	}
	got, err := to.Pull(t.Context(), ref, me)
	if err != nil || got.ID != img.ID {
		t.Errorf("pull: %s, %v; want %s", got.ID, err, img.ID)
	}
	guess, nobody, trusting := me, me, me
	guess.Auth.Password, nobody.Auth, trusting.HostDirs = "guess", Auth{}, []string{}
	for what, o := range map[string]TransferOptions{"a guess": guess, "nobody": nobody} {
		if _, err := open(t).Pull(t.Context(), ref, o); !errors.Is(err, ErrDenied) {
			t.Errorf("%s pulls: %v, want access denied", what, err)
		}
		if _, err := from.Push(t.Context(), ref, o); !errors.Is(err, ErrDenied) {
			t.Errorf("%s pushes: %v, want access denied", what, err)
		}
	}
	var unknown x509.UnknownAuthorityError
	if _, err := open(t).Pull(t.Context(), ref, trusting); !errors.As(err, &unknown) {
		t.Errorf("without its certificate: %v", err)
	}
}

// awaitListener returns once somebody listens at an address.
func awaitListener(t *testing.T, host string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		answer, err := client.Get("http://" + host) // any answer will do, a complaint about TLS too
		if err == nil {
			answer.Body.Close()
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("nobody listens at %s", host)
}

// selfSigned is a certificate for loopback, and its key, as PEM.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}))
}
