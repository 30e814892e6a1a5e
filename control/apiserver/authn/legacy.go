package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// legacyIssuer is that of tokens in secrets, which have no end; invalidSince is
// the label by which their cleaner shuts them out before it deletes them.
const (
	legacyIssuer = "kubernetes/serviceaccount"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

// legacyClaims are what such a token says.
type legacyClaims struct {
	jwt.RegisteredClaims
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
	Account   string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// issuerOf reads, without any check, who says to have issued a token.
func issuerOf(token string) string {
	var c jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &c); err != nil {
		return ""
	}
	return c.Issuer
}

// issued says whether a token claims to be one of ours.
func (t *Tokens) issued(token string) bool {
	issuer := issuerOf(token)
	return issuer == t.issuer || issuer == legacyIssuer
}

// checkLegacy verifies a token out of a secret: it is worth what the secret is.
func (t *Tokens) checkLegacy(ctx context.Context, token string, audiences []string) (Verdict, error) {
	refused := func(err error) (Verdict, error) { return Verdict{}, fmt.Errorf("%w: %w", err, ErrRefused) }
	var c legacyClaims
	_, err := jwt.ParseWithClaims(token, &c, t.key, jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}),
		jwt.WithIssuer(legacyIssuer), jwt.WithTimeFunc(t.now))
	if err != nil {
		return refused(plainly(err))
	}
	if want := identity.ServiceAccount(c.Namespace, c.Account, "").Name; c.Subject != want {
		return refused(errors.New("sub claim does not match the service account"))
	}
	obj, err := t.objects.Get(ctx, object("secrets", c.Namespace, c.Secret), metav1.GetOptions{})
	secret, ok := obj.(*corev1.Secret)
	switch {
	case err != nil || !ok:
		return refused(errInvalidated)
	case secret.DeletionTimestamp != nil || subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1:
		return refused(errInvalidated)
	case secret.Labels[invalidSince] != "":
		return refused(fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token",
			c.Namespace, c.Secret, c.Namespace, c.Account))
	}
	if err := t.same(ctx, object("serviceaccounts", c.Namespace, c.Account), c.UID); err != nil {
		return refused(err)
	}
	return Verdict{User: identity.ServiceAccount(c.Namespace, c.Account, c.UID), Audiences: audiences}, nil
}
