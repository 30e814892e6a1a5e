package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// FuzzCertificates: what is sent as a request, as an issued chain, as a pod's stub
// or as anchors of trust is judged, cheaply; and a request that is valid can be read
// by the signers.
func FuzzCertificates(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}},
		DNSNames: []string{"n1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
	if err != nil {
		f.Fatal(err)
	}
	anchor := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a"}, NotAfter: time.Unix(1<<32, 0), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, anchor, anchor, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	inPEM := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for _, data := range [][]byte{request, cert, inPEM(requestBlock, request), inPEM(certificateBlock, cert), append(inPEM(certificateBlock, cert), inPEM(certificateBlock, cert)...),
		[]byte("-----BEGIN CERTIFICATE-----\nA: b\n\n-----END CERTIFICATE-----\n"), []byte("# text\n"), nil} {
		f.Add(data, "kubernetes.io/kube-apiserver-client", "client auth")
	}
	f.Add(inPEM(requestBlock, request), "kubernetes.io/kubelet-serving", "server auth")
	f.Fuzz(func(t *testing.T, data []byte, signer, usage string) {
		frugal.Run(t, len(data), func() {
			r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
			r.Spec = certificatesv1.CertificateSigningRequestSpec{Request: data, SignerName: signer, Usages: []certificatesv1.KeyUsage{certificatesv1.KeyUsage(usage)}}
			if len(validateRequest(r)) == 0 {
				if _, err := ParseRequest(data); err != nil {
					t.Errorf("a valid request cannot be read: %v", err)
				}
			}
			issued := r.DeepCopy()
			issued.Status.Certificate = data
			validateRequestStatus(issued, r)
			requestRow(issued, time.Unix(0, 0))
			pod := &podRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "a"}, Spec: certificatesv1.PodCertificateRequestSpec{SignerName: signer, StubPKCS10Request: data}}
			validatePodRequest(pod)
			done := pod.DeepCopy()
			done.Status.CertificateChain = string(data)
			done.Status.Conditions = []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "x"}}
			validatePodRequestStatus(done, pod)
			validateBundle(&certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: string(data)}})
		})
	})
}
