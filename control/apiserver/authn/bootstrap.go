package authn

import (
	"context"
	"crypto/subtle"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// The forms of a bootstrap token, and of the groups that it may bring.
var (
	bootstrapForm  = regexp.MustCompile(`\A([a-z0-9]{6})\.([a-z0-9]{16})\z`)
	bootstrapGroup = regexp.MustCompile(`\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`)
)

const (
	bootstrappers   = "system:bootstrappers"
	bootstrapPrefix = "system:bootstrap:"
	// bootstrapLength is that of a bootstrap token, in bytes.
	bootstrapLength = 6 + 1 + 16
)

// byBootstrapToken lets a new node in that knows one of the tokens in kube-system.
// ok is false when the token has not their form.
func (a *Authenticator) byBootstrapToken(ctx context.Context, token string) (who identity.Identity, ok bool, err error) {
	if len(token) != bootstrapLength || a.cfg.Objects == nil {
		return who, false, nil
	}
	parts := bootstrapForm.FindStringSubmatch(token)
	if parts == nil {
		return who, false, nil
	}
	refused := func(why string) (identity.Identity, bool, error) {
		return identity.Identity{}, true, fmt.Errorf("bootstrap token %q %s: %w", parts[1], why, ErrRefused)
	}
	obj, err := a.cfg.Objects.Get(ctx, object("secrets", metav1.NamespaceSystem, "bootstrap-token-"+parts[1]), metav1.GetOptions{})
	if err != nil {
		return refused("is not known")
	}
	secret, isSecret := obj.(*corev1.Secret)
	switch {
	case !isSecret || secret.DeletionTimestamp != nil || secret.Type != corev1.SecretTypeBootstrapToken:
		return refused("is none")
	case subtle.ConstantTimeCompare(secret.Data["token-secret"], []byte(parts[2])) != 1:
		return refused("has another secret")
	case string(secret.Data["token-id"]) != parts[1]:
		return refused("has another id")
	case ended(string(secret.Data["expiration"]), a.cfg.Now()):
		return refused("has expired")
	case string(secret.Data["usage-bootstrap-authentication"]) != "true":
		return refused("is not for authentication")
	}
	who = identity.Identity{Name: bootstrapPrefix + parts[1], Groups: []string{bootstrappers}}
	if extra := string(secret.Data["auth-extra-groups"]); extra != "" {
		for group := range strings.SplitSeq(extra, ",") {
			if !bootstrapGroup.MatchString(group) {
				return refused("brings a group that it may not")
			}
			who.Groups = append(who.Groups, group)
		}
	}
	return withAuthenticated(who), true, nil
}

// ended: an end that cannot be read has come.
func ended(text string, now time.Time) bool {
	if text == "" {
		return false
	}
	end, err := time.Parse(time.RFC3339, text)
	return err != nil || !now.Before(end)
}
