package authn

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/internal/identity"
)

// FrontProxy is a server that authenticates others and hands their requests on,
// with their names in headers.
type FrontProxy struct {
	// CAs certify the proxy; Names are the common names that it may have, any if there
	// are none.
	CAs   *x509.CertPool
	Names []string
}

// The headers by which a front proxy names the caller.
const (
	remoteUser        = "X-Remote-User"
	remoteUID         = "X-Remote-Uid"
	remoteGroup       = "X-Remote-Group"
	remoteExtraPrefix = "X-Remote-Extra-"
)

// byFrontProxy believes the headers of a request that comes from the proxy, and
// takes them off it. ok is false when it does not come from there.
func (a *Authenticator) byFrontProxy(r *http.Request) (who identity.Identity, ok bool) {
	t := a.trusted.Load()
	if t.front == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.Header.Get(remoteUser) == "" {
		return who, false
	}
	leaf := r.TLS.PeerCertificates[0]
	if len(t.front.Names) > 0 && !slices.Contains(t.front.Names, leaf.Subject.CommonName) {
		return who, false
	}
	now := a.cfg.Now()
	if _, known := t.proxy.holder(leaf, now); !known || now.Before(leaf.NotBefore) {
		until, err := verify(r.TLS.PeerCertificates, t.front.CAs, now)
		if err != nil {
			return who, false
		}
		t.proxy.remember(leaf, holder{until: until})
	}
	who = identity.Identity{Name: r.Header.Get(remoteUser), UID: r.Header.Get(remoteUID),
		Groups: slices.Clone(r.Header.Values(remoteGroup)), Extra: map[string][]string{}}
	for name, values := range r.Header {
		rest, isExtra := strings.CutPrefix(name, remoteExtraPrefix)
		if !isExtra {
			continue
		}
		key := strings.ToLower(rest)
		if decoded, err := url.PathUnescape(key); err == nil {
			key = decoded
		}
		who.Extra[key] = append(who.Extra[key], values...)
	}
	for name := range r.Header {
		if name == remoteUser || name == remoteUID || name == remoteGroup || strings.HasPrefix(name, remoteExtraPrefix) {
			r.Header.Del(name)
		}
	}
	return withAuthenticated(who), true
}

// withAuthenticated adds the group of all who have a name.
func withAuthenticated(who identity.Identity) identity.Identity {
	if !who.In(identity.Authenticated) && !who.In(identity.Unauthenticated) && who.Name != identity.Anonymous {
		who.Groups = append(slices.Clip(who.Groups), identity.Authenticated)
	}
	return who
}
