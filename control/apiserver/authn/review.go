package authn

import (
	"context"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// unknownBearer is said of a token that nobody here has issued.
const unknownBearer = "invalid bearer token"

// Review says who the bearer of the token in r is.
func (a *Authenticator) Review(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	if r.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	out := r.DeepCopy()
	verdict, err := a.ByToken(ctx, r.Spec.Token, r.Spec.Audiences)
	if err != nil {
		text := strings.TrimSuffix(err.Error(), ": "+ErrRefused.Error())
		if text != unknownBearer { // upstream lists what each authenticator said; all others know no such token
			text = "[" + unknownBearer + ", " + text + "]"
		}
		out.Status = authenticationv1.TokenReviewStatus{Error: text}
		return out, nil
	}
	out.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: userInfo(verdict.User), Audiences: verdict.Audiences}
	return out, nil
}

// Self tells the caller who they are: "kubectl auth whoami".
func Self(caller identity.Identity, now metav1.Time) *authenticationv1.SelfSubjectReview {
	return &authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: now},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(caller)},
	}
}

func userInfo(id identity.Identity) authenticationv1.UserInfo {
	u := authenticationv1.UserInfo{Username: id.Name, UID: id.UID, Groups: id.Groups, Extra: map[string]authenticationv1.ExtraValue{}}
	for k, v := range id.Extra {
		u.Extra[k] = v
	}
	return u
}
