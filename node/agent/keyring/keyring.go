// Package keyring finds the credentials that fit an image's repository, by the
// kubelet's rules: those of the most specific name first, and hosts with stars in
// their parts. Where credentials come from stays with them, since who has pulled an
// image with what decides who may use it.
package keyring

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hub is the name that Docker's own registry has in files of credentials.
const hub = "index.docker.io"

// Object is one of the API's that opened a registry.
type Object struct{ Namespace, Name, UID string }

// Source is where a Key comes from: one of a Secret and a ServiceAccount, or, with
// neither, the node itself, so that all its pods have it.
type Source struct{ Secret, ServiceAccount *Object }

// Key is what opens a registry.
type Key struct {
	Entry
	Source
}

// Auth is the key as engines take it. It names no server: the engine asks whichever
// has the image.
func (k Key) Auth() *rt.AuthConfig {
	return &rt.AuthConfig{Username: k.Username, Password: k.Password, IdentityToken: k.IdentityToken, RegistryToken: k.RegistryToken}
}

// Hash tells keys apart without telling them. It is the kubelet's, whose records
// have it too.
func (k Key) Hash() string {
	raw, err := json.Marshal(struct {
		Username      string `json:"username,omitempty"`
		Password      string `json:"password,omitempty"`
		Email         string `json:"email,omitempty"`
		IdentityToken string `json:"identitytoken,omitempty"`
		RegistryToken string `json:"registrytoken,omitempty"`
	}{k.Username, k.Password, k.Email, k.IdentityToken, k.RegistryToken})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Ring holds keys by the registries, or the parts of them, that they open. The zero
// value is empty; it is not for several goroutines at once.
type Ring struct {
	names []string
	keys  map[string][]Key
}

// Add puts the keys of one source on the ring, behind those that are there already.
// Names that are no addresses open nothing.
func (r *Ring) Add(from Source, entries Entries) {
	if r.keys == nil {
		r.keys = map[string][]Key{}
	}
	for name, entry := range entries {
		place, ok := placeOf(name)
		if !ok || entry == (Entry{}) {
			continue
		}
		if _, known := r.keys[place]; !known {
			r.names = append(r.names, place)
		}
		r.keys[place] = append(r.keys[place], Key{entry, from})
	}
	slices.Sort(r.names)
	slices.Reverse(r.names) // so that registry/path comes before registry
}

// placeOf is the host, and the path if any, that a name in a file of credentials
// means: https://host/v1/, host/v2/ and host are one.
func placeOf(name string) (string, bool) {
	if !strings.HasPrefix(name, "https://") && !strings.HasPrefix(name, "http://") {
		name = "https://" + name
	}
	u, err := url.Parse(name)
	if err != nil {
		return "", false
	}
	rest := u.Path
	if strings.HasPrefix(rest, "/v1/") || strings.HasPrefix(rest, "/v2/") {
		rest = rest[len("/v1"):]
	}
	if rest == "/" {
		rest = ""
	}
	return u.Host + rest, true
}

// Find returns the keys that fit a repository, as Repository names it.
func (r *Ring) Find(repository string) []Key {
	var found []Key
	for _, name := range r.names {
		if Matches(name, repository) {
			found = append(found, r.keys[name]...)
		}
	}
	if len(found) == 0 && strings.HasPrefix(repository, "docker.io/") {
		return slices.Clone(r.keys[hub])
	}
	return found
}

// CheckPattern says what is wrong with what Matches is to compare.
func CheckPattern(pattern string) error {
	_, err := url.Parse("https://" + pattern)
	return err
}

// Matches says whether a pattern, which is a host with an optional port and path,
// fits a repository: the hosts have the same number of parts, each of which fits
// (stars stand for anything within a part), the ports are equal, and the path is
// how the repository's begins.
func Matches(pattern, repository string) bool {
	p, err := url.Parse("https://" + pattern)
	if err != nil {
		return false
	}
	r, err := url.Parse("https://" + repository)
	if err != nil {
		return false
	}
	want, port := hostParts(p.Host)
	have, itsPort := hostParts(r.Host)
	if port != itsPort || len(want) != len(have) || !strings.HasPrefix(r.Path, p.Path) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func hostParts(host string) (parts []string, port string) {
	if name, p, err := net.SplitHostPort(host); err == nil {
		host, port = name, p
	}
	return strings.Split(host, "."), port
}

// Repository is an image's whole name without tag and digest: of busybox:1 it is
// docker.io/library/busybox.
func Repository(image string) (string, error) {
	name := Bare(image)
	host, rest, ok := strings.Cut(name, "/")
	if !ok || !(strings.ContainsAny(host, ".:") || host == "localhost" || strings.ToLower(host) != host) {
		host, rest = "docker.io", name
	}
	if host == hub {
		host = "docker.io"
	}
	if rest == "" || strings.ContainsAny(rest, ": \t\n") || strings.ToLower(rest) != rest {
		return "", fmt.Errorf("couldn't parse image name %q: invalid reference format", image)
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return host + "/" + rest, nil
}

// Bare is what was written of an image's name without tag and digest.
func Bare(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}
