// Package tokensecret keeps a promise: a secret of the type
// kubernetes.io/service-account-token holds a token of the account that it names,
// for as long as that account exists, and goes with it. It follows upstream's
// token controller in pkg/controller/serviceaccount.
package tokensecret

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/reconcile"
)

// Issuer is the iss claim of these tokens, which have no end.
const Issuer = "kubernetes/serviceaccount"

// byAccount indexes token secrets by "namespace/account".
const byAccount = "account"

// Controller fills secrets. Its keys are secrets.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	secrets   *informer.Informer[*corev1.Secret]
	accounts  *informer.Informer[*corev1.ServiceAccount]
	key       *pki.TokenKey
	root      string
}

// New makes the controller: key signs the tokens, root is the PEM certificate of
// the API server's authority that goes beside them.
func New(cfg controller.Config, key *pki.TokenKey, root []byte) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if key == nil {
		return nil, errors.New("token secrets: no key")
	}
	c := &Controller{
		transport: cfg.Transport(""), key: key, root: string(root),
		secrets:  controller.Mirror(cfg.Mirrors, client.Secrets),
		accounts: controller.Mirror(cfg.Mirrors, client.ServiceAccounts),
	}
	c.secrets.AddIndex(byAccount, func(s *corev1.Secret) []string {
		if s.Type != corev1.SecretTypeServiceAccountToken {
			return nil
		}
		return []string{s.Namespace + "/" + s.Annotations[corev1.ServiceAccountNameKey]}
	})
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.secrets.Subscribe(func(e informer.Event[*corev1.Secret]) {
		if e.Object().Type == corev1.SecretTypeServiceAccountToken {
			c.loop.Enqueue(controller.KeyOf(e.Object()))
		}
	})
	c.accounts.Subscribe(func(e informer.Event[*corev1.ServiceAccount]) {
		a := e.Object()
		for _, s := range c.secrets.ByIndex(byAccount, a.Namespace+"/"+a.Name) {
			c.loop.Enqueue(controller.KeyOf(s))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "tokensecret" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Secrets.GroupVersionResource, client.ServiceAccounts.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	gvr := client.Secrets.GroupVersionResource
	return []reconcile.Write{{Resource: gvr, Part: "data[token]"}, {Resource: gvr, Part: reconcile.Delete}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.secrets.Get(key.Namespace, key.Name)
	if !ok || have.Type != corev1.SecretTypeServiceAccountToken || have.DeletionTimestamp != nil {
		return 0, nil
	}
	account, err := c.account(ctx, have)
	if err != nil {
		return 0, fmt.Errorf("find the account of secret %q: %w", key, err)
	}
	if account == nil {
		return 0, c.remove(ctx, have)
	}
	next := have.DeepCopy()
	changed, err := c.fill(next, account)
	if err != nil || !changed {
		return 0, err
	}
	_, err = client.Secrets.Update(ctx, c.transport, next)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("fill secret %q: %w", key, err)
	}
	return 0, nil
}

// account is the one that the secret names, nil when there is none such; only the
// server itself is believed when it says so.
func (c *Controller) account(ctx context.Context, s *corev1.Secret) (*corev1.ServiceAccount, error) {
	name, uid := s.Annotations[corev1.ServiceAccountNameKey], types.UID(s.Annotations[corev1.ServiceAccountUIDKey])
	fits := func(a *corev1.ServiceAccount) bool { return uid == "" || a.UID == uid }
	if a, ok := c.accounts.Get(s.Namespace, name); ok && fits(a) {
		return a, nil
	}
	a, err := client.ServiceAccounts.Get(ctx, c.transport, s.Namespace, name)
	if apierrors.IsNotFound(err) || err == nil && !fits(a) {
		return nil, nil
	}
	return a, err
}

func (c *Controller) remove(ctx context.Context, s *corev1.Secret) error {
	err := client.Secrets.Delete(ctx, c.transport, s.Namespace, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete secret %q of an account that is gone: %w", s.Name, err)
	}
	return nil
}

// fill completes the secret and says whether anything was missing.
func (c *Controller) fill(s *corev1.Secret, account *corev1.ServiceAccount) (changed bool, err error) {
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	put := func(key string, value string) {
		if string(s.Data[key]) != value {
			s.Data[key], changed = []byte(value), true
		}
	}
	put(corev1.ServiceAccountRootCAKey, c.root)
	if len(s.Data[corev1.ServiceAccountNamespaceKey]) == 0 {
		put(corev1.ServiceAccountNamespaceKey, s.Namespace)
	}
	if len(s.Data[corev1.ServiceAccountTokenKey]) == 0 {
		token, err := c.token(s, account)
		if err != nil {
			return false, err
		}
		put(corev1.ServiceAccountTokenKey, token)
	}
	if s.Annotations[corev1.ServiceAccountUIDKey] != string(account.UID) {
		s.Annotations[corev1.ServiceAccountUIDKey], changed = string(account.UID), true
	}
	return changed, nil
}

// token is bound to the secret: it is worth nothing once that is gone.
func (c *Controller) token(s *corev1.Secret, account *corev1.ServiceAccount) (string, error) {
	subject := identity.ServiceAccount(account.Namespace, account.Name, "").Name
	made := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss":                                    Issuer,
		"sub":                                    subject,
		"kubernetes.io/serviceaccount/namespace": account.Namespace,
		"kubernetes.io/serviceaccount/secret.name":          s.Name,
		"kubernetes.io/serviceaccount/service-account.name": account.Name,
		"kubernetes.io/serviceaccount/service-account.uid":  string(account.UID),
	})
	made.Header["kid"] = c.key.ID
	token, err := made.SignedString(c.key.Key)
	if err != nil {
		return "", fmt.Errorf("sign token for %q: %w", subject, err)
	}
	return token, nil
}
