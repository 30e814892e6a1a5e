package impersonate

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/internal/identity"
)

// headers is what the names of all headers of impersonation begin with.
const headers = "Impersonate-"

// Wanted reads whom a request wants to act as, and takes the headers that say so
// off it: nobody behind this can tell a borrowed name by them. It is nil when the
// request says nothing, and a 400 when it names groups, a UID or extra values of
// nobody. Nothing is added to what the headers say.
func Wanted(h http.Header) (*identity.Identity, error) {
	there := false
	for name := range h {
		if strings.HasPrefix(name, headers) {
			there = true
			break
		}
	}
	if !there {
		return nil, nil
	}
	w := &identity.Identity{Name: h.Get(authenticationv1.ImpersonateUserHeader), UID: h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: h.Values(authenticationv1.ImpersonateGroupHeader)}
	more := w.UID != "" || len(w.Groups) > 0
	for name, values := range h {
		key, ok := strings.CutPrefix(name, authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		more = true
		if len(values) > 0 {
			key = extraKey(key)
			if w.Extra == nil {
				w.Extra = map[string][]string{}
			}
			w.Extra[key] = append(w.Extra[key], values...)
		}
	}
	for name := range h {
		if strings.HasPrefix(name, headers) {
			delete(h, name)
		}
	}
	switch {
	case w.Name != "":
		return w, nil
	case more:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("requested &user.DefaultInfo{Name:%q, UID:%q, Groups:%#v, Extra:%#v} without impersonating a user name",
			w.Name, w.UID, w.Groups, w.Extra))
	}
	return nil, nil
}

// extraKey undoes what makes a key fit for a header; what cannot be undone counts
// as it is.
func extraKey(name string) string {
	name = strings.ToLower(name)
	if decoded, err := url.PathUnescape(name); err == nil {
		return decoded
	}
	return name
}
