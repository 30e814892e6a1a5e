package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/node/volume"
)

// Times of pod certificates, as upstream has them.
const (
	// renewJitter spreads the renewals of certificates issued together.
	renewJitter = 5 * time.Minute
	// abandonAfter is how long after its creation a request that the mirror
	// doesn't show counts as deleted, and another is made.
	abandonAfter = 10 * time.Minute
	// overdueAfter is how long after the time to renew a certificate is overdue.
	overdueAfter = 10 * time.Minute
	// lookAgain is when a volume whose renewal is under way is looked at again,
	// should its request never be answered.
	lookAgain = time.Minute
)

var errNotIssued = errors.New("credential bundle is not issued yet")

// certKey is one podCertificate source of one pod.
type certKey struct {
	uid    types.UID
	volume string
	source int
}

// certificate is what is known of one source. Its lock is held while the API is
// asked, so that one request is made at a time.
type certificate struct {
	mu sync.Mutex
	// held is the credential in use, without a key while there is none.
	held    volume.Credential
	expires time.Time
	// pending is the request under way, "" for none, with its key.
	pending    string
	pendingKey []byte
	abandon    time.Time
	// refused is final: the signer will never issue it. verdict is how, denied or failed.
	refused error
	verdict string
	signer  string
	// warned are the events sent about held.
	warnedOverdue, warnedExpired bool
}

// certificates asks for pods' certificates by PodCertificateRequests and renews
// them. Keys never leave this node; they are lost with the agent, and a later
// one asks for all certificates anew.
type certificates struct {
	a        *Agent
	requests *shared[*certificatesv1.PodCertificateRequest]

	mu   sync.Mutex
	held map[certKey]*certificate
}

func newCertificates(a *Agent) *certificates {
	mirror := informer.New(a.cfg.Transport, client.PodCertificateRequests, informer.Options{
		FieldSelector: "spec.nodeName=" + a.cfg.NodeName, Log: a.cfg.Log,
	})
	mirror.Subscribe(func(e informer.Event[*certificatesv1.PodCertificateRequest]) {
		a.wakeNamed([]types.UID{e.Object().Spec.PodUID})
	})
	return &certificates{
		a: a, held: map[certKey]*certificate{},
		requests: &shared[*certificatesv1.PodCertificateRequest]{mirror: mirror, word: "podcertificaterequest", begin: a.beginMirror},
	}
}

// forget drops a pod's keys.
func (s *certificates) forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.held {
		if key.uid == uid {
			delete(s.held, key)
		}
	}
}

// signed is how certificates are, and by whom.
type signed struct{ signer, state string }

// states counts the certificates of pods.
func (s *certificates) states(now time.Time) map[signed]int {
	s.mu.Lock()
	list := make([]*certificate, 0, len(s.held))
	for _, c := range s.held {
		list = append(list, c)
	}
	s.mu.Unlock()
	counts := map[signed]int{}
	for _, c := range list {
		c.mu.Lock()
		counts[signed{c.signer, c.state(now)}]++
		c.mu.Unlock()
	}
	return counts
}

// state is how a certificate is, in the words of upstream's counts.
func (c *certificate) state(now time.Time) string {
	switch {
	case c.refused != nil:
		return c.verdict
	case c.held.Key == nil:
		return "not_yet_issued"
	case now.After(c.expires):
		return "expired"
	case now.After(c.held.Renew.Add(overdueAfter)):
		return "overdue_for_refresh"
	}
	return "fresh"
}

func (s *certificates) of(key certKey) *certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.held[key]
	if c == nil {
		c = &certificate{}
		s.held[key] = c
	}
	return c
}

// get implements volume.Certificates.
func (s *certificates) get(ctx context.Context, pod *corev1.Pod, r volume.CertificateRequest) (volume.Credential, error) {
	mirror, err := s.requests.ready(ctx)
	if err != nil {
		return volume.Credential{}, err
	}
	c := s.of(certKey{pod.UID, r.Volume, r.Source})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signer = r.SignerName
	if c.pending != "" {
		s.follow(c, pod, mirror)
	}
	now := time.Now()
	if c.refused == nil && c.pending == "" && !now.Before(c.held.Renew) {
		if err := s.request(ctx, c, pod, r); err != nil && c.held.Key == nil {
			return volume.Credential{}, err
		}
	}
	switch {
	case c.refused != nil:
		return volume.Credential{}, c.refused
	case c.held.Key == nil:
		return volume.Credential{}, errNotIssued
	}
	s.warn(c, pod, now)
	answer := c.held
	if !now.Before(answer.Renew) {
		answer.Renew = now.Add(lookAgain)
	}
	return answer, nil
}

// warn tells of a certificate that its signer doesn't renew.
func (s *certificates) warn(c *certificate, pod *corev1.Pod, now time.Time) {
	if now.After(c.held.Renew.Add(overdueAfter)) && !c.warnedOverdue {
		c.warnedOverdue = true
		s.a.events.Event(pod, corev1.EventTypeWarning, "CertificateOverdueForRefresh", "PodCertificate refresh overdue")
	}
	if now.After(c.expires) && !c.warnedExpired {
		c.warnedExpired = true
		s.a.events.Event(pod, corev1.EventTypeWarning, "CertificateExpired", "PodCertificate expired")
	}
}

// follow takes in what has become of the request under way.
func (s *certificates) follow(c *certificate, pod *corev1.Pod, mirror *informer.Informer[*certificatesv1.PodCertificateRequest]) {
	req, ok := mirror.Get(pod.Namespace, c.pending)
	if !ok {
		if time.Now().After(c.abandon) {
			c.pending, c.pendingKey = "", nil
		}
		return
	}
	name := req.Namespace + "/" + req.Name
	for _, cond := range req.Status.Conditions {
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			c.verdict = "denied"
			c.refused = fmt.Errorf("PodCertificateRequest was permanently denied: reason=%q message=%q", cond.Reason, cond.Message)
			s.a.events.Event(pod, corev1.EventTypeWarning, cond.Type,
				fmt.Sprintf("PodCertificateRequest %s was denied, reason=%q, message=%q", name, cond.Reason, cond.Message))
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.verdict = "failed"
			c.refused = fmt.Errorf("PodCertificateRequest was permanently failed: reason=%q message=%q", cond.Reason, cond.Message)
			s.a.events.Event(pod, corev1.EventTypeWarning, cond.Type,
				fmt.Sprintf("PodCertificateRequest %s failed, reason=%q, message=%q", name, cond.Reason, cond.Message))
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			c.issued(req)
		default:
			continue
		}
		c.pending, c.pendingKey = "", nil
		return
	}
}

// issued takes a certificate into use.
func (c *certificate) issued(req *certificatesv1.PodCertificateRequest) {
	c.held = volume.Credential{Key: c.pendingKey, Chain: chain(req.Status.CertificateChain)}
	c.warnedOverdue, c.warnedExpired = false, false
	if t := req.Status.BeginRefreshAt; t != nil {
		c.held.Renew = t.Add(mathrand.N(renewJitter))
	}
	if t := req.Status.NotAfter; t != nil {
		c.expires = t.Time
	}
}

// chain drops what a signer may have put beside the certificates.
func chain(text string) []byte {
	var out bytes.Buffer
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out.Bytes()
		}
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
	}
}

// request makes a key and asks for a certificate for it.
func (s *certificates) request(ctx context.Context, c *certificate, pod *corev1.Pod, r volume.CertificateRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	account, err := client.ServiceAccounts.Get(ctx, s.a.cfg.Transport, pod.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return fmt.Errorf("while fetching service account: %w", err)
	}
	node, ok := s.a.nodes.Get("", s.a.cfg.NodeName)
	if !ok {
		return fmt.Errorf("node %q is not known yet", s.a.cfg.NodeName)
	}
	key, stub, err := generate(r.KeyType)
	if err != nil {
		return fmt.Errorf("while generating keypair: %w", err)
	}
	req, err := client.PodCertificateRequests.Create(ctx, s.a.cfg.Transport, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: r.SignerName, PodName: pod.Name, PodUID: pod.UID,
			ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID,
			MaxExpirationSeconds: r.MaxExpirationSeconds, StubPKCS10Request: stub, UnverifiedUserAnnotations: r.UserAnnotations,
		},
	})
	if err != nil {
		return fmt.Errorf("while creating PodCertificateRequest: %w", err)
	}
	c.pending, c.pendingKey, c.abandon = req.Name, key, time.Now().Add(abandonAfter)
	return nil
}

// generate makes a private key of an API's key type, as PEM, and proves that we
// have it by a certificate request that says nothing else.
func generate(keyType string) (key, stub []byte, err error) {
	var private crypto.Signer
	switch keyType {
	case "RSA3072":
		private, err = rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		private, err = rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("unknown key type %q", keyType)
	}
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	stub, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), stub, err
}
