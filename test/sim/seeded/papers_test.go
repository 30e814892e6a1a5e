package seeded

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// Names of what is for people's and machines' papers.
const (
	robot       = "robot" // a service account, and the secret with its token
	lastingID   = "fedcba"
	lastingWord = "abcdef0123456789"
	clusterInfo = "cluster-info"
)

// papersLife lets nodes ask for their certificates, and people for theirs, which somebody
// approves or denies; a request may be another one by then, of the same name.
func (w *world) papersLife() {
	for i := range 1 + w.rng.IntN(3) {
		m := w.nodes[w.rng.IntN(len(w.nodes))]
		name, user := fmt.Sprintf("paper-%s-%d", m.name, i), "system:node:"+m.name
		node := door{w, identity.Identity{Name: user, Groups: []string{identity.Nodes, identity.Authenticated}}}
		seconds := int32(600 + 600*w.rng.IntN(2))
		w.sometime("ask for "+name, func() error {
			return w.request(node, name, user, certificatesv1.KubeAPIServerClientKubeletSignerName, seconds)
		})
	}
	for i := range 1 + w.rng.IntN(2) {
		name, who, at := fmt.Sprintf("paper-%d", i), w.oneOf("alice", "mallory"), w.within(busy/2)
		ask := func(as string) func() {
			return func() {
				w.ask(as+" asks for "+name, func() error {
					return w.request(w.admin, name, as, certificatesv1.KubeAPIServerClientSignerName, 600)
				})
			}
		}
		w.later(at, "admin", ask(who))
		kind := certificatesv1.CertificateApproved
		if w.rng.IntN(3) == 0 {
			kind = certificatesv1.CertificateDenied
		}
		decided := at + w.within(busy/4)
		w.later(decided, "admin", func() { w.ask(fmt.Sprintf("%s is %s", name, kind), func() error { return w.decide(name, kind) }) })
		if w.rng.IntN(2) == 0 {
			w.later(decided, "admin", func() {
				w.ask("delete "+name, func() error {
					return client.CertificateSigningRequests.Delete(w.t.Context(), w.admin, "", name, metav1.DeleteOptions{})
				})
				ask("mallory")()
			})
		}
	}
}

// requestOf is a request for a certificate; the keys of all lives are the same.
func (k keys) requestOf(name string) ([]byte, error) {
	if known, ok := k.requests[name]; ok {
		return known, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: name}
	if strings.HasPrefix(name, "system:node:") {
		subject.Organization = []string{identity.Nodes}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return nil, err
	}
	k.requests[name] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return k.requests[name], nil
}

func (w *world) request(as client.Transport, name, subject, signer string, seconds int32) error {
	body, err := w.keys.requestOf(subject)
	if err != nil {
		return err
	}
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"subject": strings.ReplaceAll(subject, ":", ".")}},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: body, ExpirationSeconds: &seconds,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature}}}
	_, err = client.CertificateSigningRequests.Create(w.t.Context(), as, r)
	return err
}

// decide approves or denies, as people do.
func (w *world) decide(name string, kind certificatesv1.RequestConditionType) error {
	r, err := client.CertificateSigningRequests.Get(w.t.Context(), w.admin, "", name)
	if err != nil {
		return err
	}
	r = r.DeepCopy()
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: "Seed"})
	at := target.Of(client.CertificateSigningRequests.GroupVersionResource, "").Object(name).Sub("approval")
	_, err = w.admin.Update(w.t.Context(), at, r, metav1.UpdateOptions{})
	return err
}

// paper checks each version of a request: nobody gets a certificate that was not approved
// for him, and who has one keeps it.
func (o *oracle) paper(r *certificatesv1.CertificateSigningRequest) {
	uid := string(r.UID)
	if had := o.issued[uid]; had != "" && had != string(r.Status.Certificate) {
		o.w.fail("request %s had a certificate, and has another one", r.Name)
	}
	if len(r.Status.Certificate) == 0 || o.issued[uid] != "" {
		return
	}
	o.issued[uid] = string(r.Status.Certificate)
	approved, denied := false, false
	for _, c := range r.Status.Conditions {
		approved = approved || c.Type == certificatesv1.CertificateApproved
		denied = denied || c.Type == certificatesv1.CertificateDenied
	}
	cert := certificateOf(r)
	if cert == nil || !approved || denied {
		o.w.fail("request %s has certificate %q, approved %v, denied %v", r.Name, r.Status.Certificate, approved, denied)
		return
	}
	if name := strings.ReplaceAll(cert.Subject.CommonName, ":", "."); name != r.Labels["subject"] {
		o.w.fail("request %s is for %s, its certificate for %s", r.Name, r.Labels["subject"], name)
	}
}

func certificateOf(r *certificatesv1.CertificateSigningRequest) *x509.Certificate {
	block, _ := pem.Decode(r.Status.Certificate)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

// finalPapers: who was approved has a certificate, and what has run out is gone.
func (o *oracle) finalPapers() {
	for _, r := range list(o, client.CertificateSigningRequests) {
		approved := slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == certificatesv1.CertificateApproved
		})
		node := r.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName
		switch cert := certificateOf(r); {
		case cert == nil && (approved || node):
			o.w.fail("request %s is approved: %v, and has no certificate", r.Name, approved)
		case cert != nil && time.Since(cert.NotAfter) > longestLie:
			o.w.fail("request %s is there, its certificate has run out at %s", r.Name, cert.NotAfter.Sub(o.w.begin))
		}
	}
}

// robotLife makes a service account with a token in a secret, and removes the account, to
// make another one of its name.
func (w *world) robotLife() {
	account := func() error {
		_, err := client.ServiceAccounts.Create(w.t.Context(), w.admin, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: robot}})
		return err
	}
	secret := func() error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: robot, Annotations: map[string]string{corev1.ServiceAccountNameKey: robot}},
			Type: corev1.SecretTypeServiceAccountToken}
		_, err := client.Secrets.Create(w.t.Context(), w.admin, s)
		return err
	}
	w.ask("create service account", account)
	w.ask("create its token", secret)
	if w.rng.IntN(2) == 0 {
		w.again("service account", func(opts metav1.DeleteOptions) error {
			return client.ServiceAccounts.Delete(w.t.Context(), w.admin, "free", robot, opts)
		}, account)
		w.sometime("create its token again", secret)
	}
}

// finalRobot: a secret has the token of the account that there is, or is gone with it.
func (w *world) finalRobot(ctx context.Context) {
	s, err := client.Secrets.Get(ctx, w.admin, "free", robot)
	if err != nil {
		return
	}
	a, err := client.ServiceAccounts.Get(ctx, w.admin, "free", robot)
	if err != nil || string(a.UID) != s.Annotations[corev1.ServiceAccountUIDKey] || len(s.Data[corev1.ServiceAccountTokenKey]) == 0 {
		w.fail("secret %s is of account %q and has a token of %d bytes; account: %v", robot, s.Annotations[corev1.ServiceAccountUIDKey], len(s.Data[corev1.ServiceAccountTokenKey]), err)
		return
	}
	_, claims, _ := strings.Cut(string(s.Data[corev1.ServiceAccountTokenKey]), ".")
	claims, _, _ = strings.Cut(claims, ".")
	if text, err := base64.RawURLEncoding.DecodeString(claims); err != nil || !strings.Contains(string(text), string(a.UID)) {
		w.fail("the token of account %s says %s: %v", a.UID, text, err)
	}
}

// infoLife makes what a new node reads first, which tokens sign: one that lasts, and one
// that runs out if there is a tokenLife.
func (w *world) infoLife() {
	w.ask("create lasting token", func() error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "bootstrap-token-" + lastingID}, Type: corev1.SecretTypeBootstrapToken}
		s.StringData = map[string]string{"token-id": lastingID, "token-secret": lastingWord, "usage-bootstrap-signing": "true"}
		_, err := client.Secrets.Create(w.t.Context(), w.admin, s)
		return err
	})
	w.ask("create "+clusterInfo, func() error {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: clusterInfo}, Data: map[string]string{"kubeconfig": "here"}}
		_, err := client.ConfigMaps.Create(w.t.Context(), w.admin, m)
		return err
	})
	for i := range 1 + w.rng.IntN(3) {
		w.sometime("change "+clusterInfo, func() error {
			return changed(w, client.ConfigMaps, metav1.NamespacePublic, clusterInfo, func(m *corev1.ConfigMap) { m.Data["kubeconfig"] = fmt.Sprint("there ", i) })
		})
	}
}

// finalInfo: it is signed by the token that lasts, as it is now, and by no other.
func (w *world) finalInfo(ctx context.Context) {
	m, err := client.ConfigMaps.Get(ctx, w.admin, metav1.NamespacePublic, clusterInfo)
	if err != nil {
		return
	}
	seal := hmac.New(sha256.New, []byte(lastingWord))
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"` + lastingID + `"}`))
	fmt.Fprint(seal, head+"."+base64.RawURLEncoding.EncodeToString([]byte(m.Data["kubeconfig"])))
	want := map[string]string{"kubeconfig": m.Data["kubeconfig"], "jws-kubeconfig-" + lastingID: head + ".." + base64.RawURLEncoding.EncodeToString(seal.Sum(nil))}
	if !maps.Equal(m.Data, want) {
		have, _ := json.Marshal(m.Data)
		w.fail("%s is %s", clusterInfo, have)
	}
}

// migrationsLife has kinds of objects written again, some of them twice.
func (w *world) migrationsLife() {
	for i := range 1 + w.rng.IntN(3) {
		what := w.oneOf("configmaps", "configmaps", "pods", "services")
		made := func() error {
			m := &storagemigrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", i)},
				Spec: storagemigrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: what}}}
			_, err := client.StorageVersionMigrations.Create(w.t.Context(), w.admin, m)
			return err
		}
		at := w.within(busy / 2)
		w.later(at, "admin", func() { w.ask("migrate "+what, made) })
		if w.rng.IntN(3) == 0 {
			w.later(at+w.within(20*time.Second), "admin", func() {
				w.ask("do not migrate "+what, func() error {
					return client.StorageVersionMigrations.Delete(w.t.Context(), w.admin, "", fmt.Sprint("m", i), metav1.DeleteOptions{})
				})
				w.ask("migrate "+what+" after all", made)
			})
		}
	}
}

// checkMigrations: of one kind one migration runs at a time.
func (o *oracle) checkMigrations() {
	runs := map[string]string{}
	for _, m := range list(o, client.StorageVersionMigrations) {
		if !meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationRunning)) || migrated(m) != "" {
			continue
		}
		kind := m.Spec.Resource.String()
		if other := runs[kind]; other != "" {
			o.w.fail("migrations %s and %s of %s run at once", other, m.Name, kind)
		}
		runs[kind] = m.Name
	}
}

// migrated is how a migration has ended.
func migrated(m *storagemigrationv1.StorageVersionMigration) string {
	how := ""
	for _, c := range []storagemigrationv1.MigrationConditionType{storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed} {
		if meta.IsStatusConditionTrue(m.Status.Conditions, string(c)) {
			how += string(c)
		}
	}
	return how
}

// finalMigrations: all have come to a good end.
func (o *oracle) finalMigrations() {
	for _, m := range list(o, client.StorageVersionMigrations) {
		if how := migrated(m); how != string(storagemigrationv1.MigrationSucceeded) || m.Status.ResourceVersion == "" {
			o.w.fail("migration %s has ended as %q: %+v", m.Name, how, m.Status)
		}
	}
}
