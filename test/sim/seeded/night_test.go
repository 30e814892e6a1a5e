package seeded

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

const (
	elder = "elder" // a service account with a token of the old sort, which nobody uses
	// night is how long all sleep: longer than a token may lie unused.
	night = 367 * 24 * time.Hour
	// dawn is how long they then have to find out what time it is.
	dawn = time.Minute
	// nightOdds is of how many lives one has nights.
	nightOdds = 40
	// invalidSince marks a token that nobody has used for a year.
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

// elderLife makes what only years can change.
func (w *world) elderLife() {
	w.ask("create service account "+elder, func() error {
		a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: elder}, Secrets: []corev1.ObjectReference{{Name: elder}}}
		_, err := client.ServiceAccounts.Create(w.t.Context(), w.admin, a)
		return err
	})
	for _, name := range []string{elder, elder + "-asked-for"} { // to the latter no account refers
		w.ask("create token "+name, func() error {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: elder}},
				Type: corev1.SecretTypeServiceAccountToken}
			_, err := client.Secrets.Create(w.t.Context(), w.admin, s)
			return err
		})
	}
}

// sleep ends everybody, lets the night go by, and begins everybody again over what the
// store has kept.
func (w *world) sleep() {
	w.note("everybody sleeps")
	for who := range w.lives {
		w.retire(who)
	}
	w.halt()
	time.Sleep(night)
	w.note("everybody wakes up")
	w.serve()
	w.startControllers("controllers")
	w.startScheduler("scheduler")
	for _, m := range w.nodes {
		w.startAgent(m)
	}
	w.until(w.now(dawn))
}

// nights: after a year a token that nobody uses is invalid, and after another year it is
// gone. No request for a certificate lasts so long. What somebody asked for stays.
func (w *world) nights(ctx context.Context) {
	if !w.old {
		return
	}
	w.sleep()
	s, err := client.Secrets.Get(ctx, w.admin, "free", elder)
	if err != nil || s.Labels[invalidSince] != time.Now().UTC().Format(time.DateOnly) {
		w.fail("a year has gone by, and token %s is marked %v: %v", elder, s.GetLabels(), err)
	}
	if left, _, err := client.CertificateSigningRequests.List(ctx, w.admin, "", metav1.ListOptions{}); err != nil || len(left) > 0 {
		w.fail("a year has gone by, and there are %d requests for certificates: %v", len(left), err)
	}
	w.sleep()
	if _, err := client.Secrets.Get(ctx, w.admin, "free", elder); !apierrors.IsNotFound(err) {
		w.fail("two years have gone by, and token %s is still there: %v", elder, err)
	}
	if s, err := client.Secrets.Get(ctx, w.admin, "free", elder+"-asked-for"); err != nil || s.Labels[invalidSince] != "" {
		w.fail("a token that somebody has asked for is marked %v: %v", s.GetLabels(), err)
	}
}
