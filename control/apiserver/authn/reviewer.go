package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/sampan-dev/sampan/control/apiserver/callout"
	"github.com/sampan-dev/sampan/internal/identity"
)

// Limits of the answers that are kept.
const (
	defaultReviewTTL = 2 * time.Minute
	maxReviews       = 4096
)

// reviewer asks another server who the bearer of a token is.
type reviewer struct {
	server *callout.Server
	ttl    time.Duration
	now    func() time.Time

	mu   sync.Mutex
	kept map[[32]byte]review
}

type review struct {
	until   time.Time
	verdict Verdict
	ok      bool
	err     error
}

func newReviewer(path string, ttl time.Duration, now func() time.Time) (*reviewer, error) {
	server, err := callout.Open(path)
	if err != nil {
		return nil, fmt.Errorf("token webhook: %w", err)
	}
	if ttl == 0 {
		ttl = defaultReviewTTL
	}
	return &reviewer{server: server, ttl: ttl, now: now, kept: map[[32]byte]review{}}, nil
}

// Check implements TokenSource. Answers are kept; failures to ask are not.
func (r *reviewer) Check(ctx context.Context, token string, audiences []string) (Verdict, bool, error) {
	key := sha256.Sum256([]byte(strings.Join(append([]string{token}, audiences...), "\x00")))
	r.mu.Lock()
	have, ok := r.kept[key]
	r.mu.Unlock()
	if ok && r.now().Before(have.until) {
		return have.verdict, have.ok, have.err
	}
	ask := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}
	ask.APIVersion, ask.Kind = authenticationv1.SchemeGroupVersion.String(), "TokenReview"
	var answer authenticationv1.TokenReview
	if err := r.server.Ask(ctx, ask, &answer); err != nil {
		return Verdict{}, false, fmt.Errorf("token webhook: %w", err)
	}
	have = r.judge(&answer, audiences)
	have.until = r.now().Add(r.ttl)
	r.mu.Lock()
	if len(r.kept) >= maxReviews {
		clear(r.kept)
	}
	r.kept[key] = have
	r.mu.Unlock()
	return have.verdict, have.ok, have.err
}

func (r *reviewer) judge(answer *authenticationv1.TokenReview, audiences []string) review {
	if !answer.Status.Authenticated {
		if answer.Status.Error != "" {
			return review{err: errors.New(answer.Status.Error)}
		}
		return review{}
	}
	// A reviewer that knows no audiences answers for this server's.
	meant := audiences
	if len(answer.Status.Audiences) > 0 {
		meant = nil
		for _, a := range audiences {
			for _, b := range answer.Status.Audiences {
				if a == b {
					meant = append(meant, a)
				}
			}
		}
		if len(meant) == 0 {
			return review{}
		}
	}
	u := answer.Status.User
	who := identity.Identity{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: map[string][]string{}}
	for k, v := range u.Extra {
		who.Extra[k] = v
	}
	return review{verdict: Verdict{User: withAuthenticated(who), Audiences: meant}, ok: true}
}
