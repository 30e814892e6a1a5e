package script

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// signedWithin bounds how long a kubelet of a story waits for its certificate.
const signedWithin = time.Minute

// kubelet NODE TOKEN: the certificate that upstream's kubelet would get with a token, as
// NODE.pem with its key, and a NODE.kubeconfig that shows it.
func (c *cluster) kubelet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: kubelet NODE TOKEN")
	}
	authority := filepath.Join(c.data, "pki", "ca.crt")
	raw, err := os.ReadFile(authority)
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	b := &bearer{token: args[1], http: http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}}
	defer b.http.CloseIdleConnections()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	signed, err := b.ask(args[0], key)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	file := ts.MkAbs(args[0] + ".pem")
	ts.Check(os.WriteFile(file, append(signed, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".kubeconfig"), fmt.Appendf(nil, `
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://%s:6443", certificate-authority: %q}}]
users: [{name: u, user: {client-certificate: %q, client-key: %q}}]
`, nodeAddress, authority, file, file), 0o600))
}

// bearer asks the API server as who has a token.
type bearer struct {
	token string
	http  http.Client
}

// csr is of a CertificateSigningRequest what matters here.
type csr struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       map[string]any `json:"spec"`
	Status     struct {
		Certificate []byte `json:"certificate"`
	} `json:"status"`
}

// ask gives the certificate, as PEM.
func (b *bearer) ask(node string, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		return nil, err
	}
	request := csr{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest", Metadata: map[string]any{"generateName": "node-csr-"},
		Spec: map[string]any{"signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": []string{"digital signature", "client auth"},
			"request": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
	if request, err = b.do(http.MethodPost, "", request); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(signedWithin); len(request.Status.Certificate) == 0; {
		if time.Now().After(deadline) {
			return nil, errors.New("nobody has signed the request")
		}
		<-time.After(pollEvery)
		if request, err = b.do(http.MethodGet, "/"+request.Metadata["name"].(string), csr{}); err != nil {
			return nil, err
		}
	}
	return request.Status.Certificate, nil
}

func (b *bearer) do(method, path string, in csr) (out csr, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	r, err := http.NewRequest(method, "https://"+nodeAddress+":6443/apis/certificates.k8s.io/v1/certificatesigningrequests"+path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := b.http.Do(r)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, said)
	}
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(said, &out)
}
