package sim_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

const (
	clientSigner  = certificatesv1.KubeAPIServerClientSignerName
	nodeSigner    = certificatesv1.KubeAPIServerClientKubeletSignerName
	servingSigner = certificatesv1.KubeletServingSignerName
)

func requestOf(t *testing.T, name string, groups ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: groups}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// csr asks for a certificate as who.
func (p *plane) csr(who client.Transport, name, signer string, request []byte, change func(*certificatesv1.CertificateSigningRequestSpec)) error {
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: signer, Request: request, Usages: []certificatesv1.KeyUsage{"client auth", "digital signature"}, Username: "somebody else"}}
	if change != nil {
		change(&r.Spec)
	}
	_, err := client.CertificateSigningRequests.Create(p.Context(), who, r)
	return err
}

// decide approves or denies, as kubectl certificate does.
func (p *plane) decide(who client.Transport, name string, kind certificatesv1.RequestConditionType) error {
	r, err := client.CertificateSigningRequests.Get(p.Context(), p.admin, "", name)
	if err != nil {
		return err
	}
	r = r.DeepCopy()
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: "Test"})
	_, err = who.Update(p.Context(), target.Of(client.CertificateSigningRequests.GroupVersionResource, "").Object(name).Sub("approval"), r, metav1.UpdateOptions{})
	return err
}

// expectCSR compares "conditions user certificate".
func (p *plane) expectCSR(name, want string) {
	p.Helper()
	p.settle()
	r, err := client.CertificateSigningRequests.Get(p.Context(), p.admin, "", name)
	if apierrors.IsNotFound(err) {
		if want != "gone" {
			p.Errorf("request %q is gone, want %s", name, want)
		}
		return
	}
	if err != nil {
		p.Fatal(err)
	}
	var parts []string
	for _, c := range r.Status.Conditions {
		parts = append(parts, string(c.Type))
		if c.LastUpdateTime.IsZero() || c.LastTransitionTime.IsZero() {
			p.Errorf("condition without times: %+v", c)
		}
		if c.Type == certificatesv1.CertificateFailed {
			parts = append(parts, c.Reason, c.Message)
		}
	}
	parts = append(parts, "by "+r.Spec.Username)
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			p.Fatal(err)
		}
		parts = append(parts, fmt.Sprintf("for %s%v lasting %s ca=%v", cert.Subject.CommonName, cert.Subject.Organization, cert.NotAfter.Sub(cert.NotBefore), cert.IsCA))
	}
	if got := strings.Join(parts, " "); got != want {
		p.Errorf("request %q\n got %s\nwant %s", name, got, want)
	}
}

// grant gives the group of all users a cluster role.
func (p *plane) grant(role string, rules ...rbacv1.PolicyRule) {
	p.Helper()
	if len(rules) > 0 {
		if _, err := client.ClusterRoles.Create(p.Context(), p.admin, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: rules}); err != nil {
			p.Fatal(err)
		}
	}
	_, err := client.ClusterRoleBindings.Create(p.Context(), p.admin, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(role, ":", "-")},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: identity.Authenticated}}})
	if err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func rule(resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{resource}, Verbs: verbs}
}

func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		alice := p.server.Local(identity.Identity{Name: "alice", Groups: []string{"crew", identity.Authenticated}})
		if err := p.csr(alice, "alice", clientSigner, requestOf(t, "alice", "crew"), nil); !apierrors.IsForbidden(err) {
			t.Errorf("without a right: %v", err)
		}
		p.grant("ask", rule("certificatesigningrequests", "create", "get", "update"), rule("certificatesigningrequests/approval", "update"))
		if err := p.csr(alice, "alice", clientSigner, requestOf(t, "alice", "crew"), nil); err != nil {
			t.Fatal(err)
		}
		p.expectCSR("alice", "by alice")
		if err := p.decide(alice, "alice", certificatesv1.CertificateApproved); !apierrors.IsForbidden(err) ||
			!strings.Contains(err.Error(), `user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"`) {
			t.Errorf("approving oneself: %v", err)
		}
		if err := p.decide(p.admin, "alice", certificatesv1.CertificateApproved); err != nil {
			t.Fatal(err)
		}
		p.expectCSR("alice", "Approved by alice for alice[crew] lasting 8760h0m0s ca=false")
		if err := p.decide(p.admin, "alice", certificatesv1.CertificateDenied); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must specify at most one of") {
			t.Errorf("denied after approval: %v", err)
		}
		if err := p.csr(alice, "king", clientSigner, requestOf(t, "alice", "system:masters"), nil); !apierrors.IsForbidden(err) ||
			!strings.Contains(err.Error(), "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed") {
			t.Errorf("a king: %v", err)
		}
		seconds := int32(3600)
		brief := func(s *certificatesv1.CertificateSigningRequestSpec) { s.ExpirationSeconds = &seconds }
		wrong := func(s *certificatesv1.CertificateSigningRequestSpec) {
			s.Usages = append(s.Usages, certificatesv1.UsageServerAuth)
		}
		for name, change := range map[string]func(*certificatesv1.CertificateSigningRequestSpec){"brief": brief, "wrong": wrong, "denied": nil} {
			if err := p.csr(alice, name, clientSigner, requestOf(t, name), change); err != nil {
				t.Fatal(err)
			}
			kind := certificatesv1.CertificateApproved
			if name == "denied" {
				kind = certificatesv1.CertificateDenied
			}
			if err := p.decide(p.admin, name, kind); err != nil {
				t.Fatal(err)
			}
		}
		p.expectCSR("brief", "Approved by alice for brief[] lasting 1h5m0s ca=false")
		p.expectCSR("wrong", "Approved Failed SignerValidationFailure invalid usage for client certificate: server auth by alice")
		p.expectCSR("denied", "Denied by alice")
		time.Sleep(time.Hour)
		for _, name := range []string{"alice", "brief", "wrong", "denied"} {
			p.expectCSR(name, "gone")
		}
	})
}

// A node gets its client certificate renewed by itself, and a serving certificate
// for names that are its own.
func TestNodeCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		node := p.server.Local(identity.Identity{Name: "system:node:n1", Groups: []string{identity.Nodes, identity.Authenticated}})
		if err := p.csr(node, "n2", nodeSigner, requestOf(t, "system:node:n2", identity.Nodes), nil); !apierrors.IsForbidden(err) ||
			!strings.Contains(err.Error(), "can only create a node CSR with CN=system:node:n1") {
			t.Errorf("for another node: %v", err)
		}
		if err := p.csr(node, "n1", nodeSigner, requestOf(t, "system:node:n1", identity.Nodes), nil); err != nil {
			t.Fatal(err)
		}
		p.expectCSR("n1", "Approved by system:node:n1 for system:node:n1[system:nodes] lasting 8760h0m0s ca=false")
		// The group of our agents is for who has it, or was let in as one.
		ours := requestOf(t, "system:node:n1", identity.Nodes, identity.Agents)
		agent := p.server.Local(identity.Identity{Name: "system:node:n1", Groups: []string{identity.Nodes, identity.Agents, identity.Authenticated}})
		token := func(group string) client.Transport {
			return p.server.Local(identity.Identity{Name: "system:bootstrap:abcdef", Groups: []string{"system:bootstrappers", group, identity.Authenticated}})
		}
		joining, kubeadm := token("system:bootstrappers:sampan:nodes"), token("system:bootstrappers:kubeadm:default-node-token")
		p.boundToKubeadm()
		for name, who := range map[string]client.Transport{"renewal": agent, "rise": node, "join": joining, "kubeadm": kubeadm} {
			if err := p.csr(who, name, nodeSigner, ours, nil); err != nil {
				t.Fatal(err)
			}
		}
		const both = " for system:node:n1[system:nodes sampan:agents] lasting 8760h0m0s ca=false"
		p.expectCSR("renewal", "Approved by system:node:n1"+both)
		p.expectCSR("join", "Approved by system:bootstrap:abcdef"+both)
		p.expectCSR("rise", "by system:node:n1")
		p.expectCSR("kubeadm", "by system:bootstrap:abcdef")
		if err := p.csr(kubeadm, "kubelet", nodeSigner, requestOf(t, "system:node:n1", identity.Nodes), nil); err != nil {
			t.Fatal(err)
		}
		p.expectCSR("kubelet", "Approved by system:bootstrap:abcdef for system:node:n1[system:nodes] lasting 8760h0m0s ca=false")
		if err := p.csr(joining, "more", nodeSigner, requestOf(t, "system:node:n1", identity.Nodes, identity.Agents, "more"), nil); err != nil {
			t.Fatal(err)
		}
		p.expectCSR("more", "by system:bootstrap:abcdef")
		if err := p.csr(node, "usages", servingSigner, requestOf(t, "system:node:n1", identity.Nodes), nil); err != nil {
			t.Fatal(err)
		}
		serving := func(s *certificatesv1.CertificateSigningRequestSpec) {
			s.Usages = []certificatesv1.KeyUsage{"server auth", "digital signature"}
		}
		names := func(all ...string) []byte { return servingRequestOf(t, "system:node:n1", all...) }
		for name, request := range map[string][]byte{
			"own": names("n1", "192.0.2.1"), "dns": names("n1", "kubernetes"), "peer": names("192.0.2.2"),
			"claimed": names("192.0.2.3"), "loopback": names("127.0.0.1"),
		} {
			if err := p.csr(node, name, servingSigner, request, serving); err != nil {
				t.Fatal(err)
			}
		}
		p.expectCSR("own", "by system:node:n1") // until the node says where it is
		p.addressed("n2", "192.0.2.2", "192.0.2.3")
		p.addressed("n1", "192.0.2.1", "192.0.2.3", "127.0.0.1")
		p.expectCSR("own", "Approved by system:node:n1 for system:node:n1[system:nodes] lasting 8760h0m0s ca=false")
		for _, name := range []string{"usages", "dns", "peer", "claimed", "loopback"} {
			p.expectCSR(name, "by system:node:n1")
		}
		time.Sleep(24 * time.Hour)
		p.expectCSR("peer", "gone")
	})
}

// boundToKubeadm lets the tokens of kubeadm do what kubeadm lets them.
func (p *plane) boundToKubeadm() {
	p.Helper()
	for name, role := range map[string]string{"kubeadm:kubelet-bootstrap": "system:node-bootstrapper",
		"kubeadm:node-autoapprove-bootstrap": "system:certificates.k8s.io:certificatesigningrequests:nodeclient"} {
		_, err := p.admin.Create(p.Context(), target.Of(rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"), ""), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:bootstrappers:kubeadm:default-node-token"}}}, metav1.CreateOptions{})
		if err != nil {
			p.Fatal(err)
		}
	}
	p.settle() // until whoever decides has seen them
}

// servingRequestOf asks for a node's serving certificate.
func servingRequestOf(t *testing.T, name string, names ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{identity.Nodes}}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			r.IPAddresses = append(r.IPAddresses, ip)
			continue
		}
		r.DNSNames = append(r.DNSNames, n)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// addressed makes a node that says that it is found at ips.
func (p *plane) addressed(name string, ips ...string) {
	p.Helper()
	if _, err := client.Nodes.Create(p.Context(), p.admin, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		p.Fatal(err)
	}
	p.settle() // controllers write to a new node, too
	n, err := client.Nodes.Get(p.Context(), p.admin, "", name)
	if err != nil {
		p.Fatal(err)
	}
	n = n.DeepCopy()
	for _, ip := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	if _, err := client.Nodes.UpdateStatus(p.Context(), p.admin, n); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func TestTrustBundles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		all, _, err := client.ClusterTrustBundles.List(t.Context(), p.admin, "", metav1.ListOptions{FieldSelector: "spec.signerName=kubernetes.io/kube-apiserver-serving"})
		if err != nil || len(all) != 1 || !strings.HasPrefix(all[0].Name, "kubernetes.io:kube-apiserver-serving:") {
			t.Fatalf("bundles %v: %v", all, err)
		}
		p.grant("publish", rule("clustertrustbundles", "create", "update"))
		alice := p.server.Local(identity.Identity{Name: "alice", Groups: []string{identity.Authenticated}})
		bundle := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "example.com:s:v1"},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/s", TrustBundle: all[0].Spec.TrustBundle}}
		if _, err := client.ClusterTrustBundles.Create(t.Context(), alice, bundle); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `user not permitted to attest for signerName "example.com/s"`) {
			t.Errorf("without the right to attest: %v", err)
		}
		attest := rule("signers", "attest")
		attest.ResourceNames = []string{"example.com/*"}
		p.grant("attest", attest)
		if _, err := client.ClusterTrustBundles.Create(t.Context(), alice, bundle); err != nil {
			t.Error(err)
		}
		bundle = bundle.DeepCopy()
		bundle.Name = "unsigned"
		if _, err := client.ClusterTrustBundles.Create(t.Context(), alice, bundle); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must be named with prefix example.com:s:") {
			t.Errorf("misnamed: %v", err)
		}
	})
}

// Secrets hold tokens of their accounts, and go with them.
func TestTokensInSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		if _, err := client.ServiceAccounts.Create(t.Context(), p.admin, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "robot"}}); err != nil {
			t.Fatal(err)
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "key", Annotations: map[string]string{corev1.ServiceAccountNameKey: "robot"}}, Type: corev1.SecretTypeServiceAccountToken}
		if _, err := client.Secrets.Create(t.Context(), p.admin, secret); err != nil {
			t.Fatal(err)
		}
		p.settle()
		got, err := client.Secrets.Get(t.Context(), p.admin, "default", "key")
		if err != nil {
			t.Fatal(err)
		}
		token := string(got.Data["token"])
		v, err := p.server.Tokens().Check(t.Context(), token, []string{"https://kubernetes.default.svc.cluster.local"})
		if err != nil || v.User.Name != "system:serviceaccount:default:robot" || len(got.Data["ca.crt"]) == 0 || string(got.Data["namespace"]) != "default" {
			t.Errorf("token of %+v %v", v.User, err)
		}
		if err := client.ServiceAccounts.Delete(t.Context(), p.admin, "default", "robot", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.Secrets.Get(t.Context(), p.admin, "default", "key"); !apierrors.IsNotFound(err) {
			t.Errorf("the secret outlives its account: %v", err)
		}
		if _, err := p.server.Tokens().Check(t.Context(), token, []string{"https://kubernetes.default.svc.cluster.local"}); err == nil {
			t.Error("the token outlives its secret")
		}
	})
}

// Bootstrap tokens sign what a new node reads first, until their time is over.
func TestBootstrapTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		if _, err := client.ConfigMaps.Create(t.Context(), p.admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"}, Data: map[string]string{"kubeconfig": "here"}}); err != nil {
			t.Fatal(err)
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: corev1.SecretTypeBootstrapToken,
			StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", "expiration": time.Now().Add(time.Hour).Format(time.RFC3339)}}
		if _, err := client.Secrets.Create(t.Context(), p.admin, secret); err != nil {
			t.Fatal(err)
		}
		signature := func() string {
			p.settle()
			m, err := client.ConfigMaps.Get(t.Context(), p.admin, "kube-public", "cluster-info")
			if err != nil {
				t.Fatal(err)
			}
			return m.Data["jws-kubeconfig-abcdef"]
		}
		if got := signature(); !strings.HasPrefix(got, "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..") {
			t.Errorf("signature %q", got)
		}
		time.Sleep(time.Hour)
		if got := signature(); got != "" {
			t.Errorf("signature of a token that is over: %q", got)
		}
		if _, err := client.Secrets.Get(t.Context(), p.admin, "kube-system", "bootstrap-token-abcdef"); !apierrors.IsNotFound(err) {
			t.Errorf("the token is still there: %v", err)
		}
	})
}
