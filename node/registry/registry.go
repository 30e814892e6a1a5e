// Package registry serves an image store as a registry: the OCI distribution
// specification, version 1.1, so that docker, podman, skopeo, containerd and other
// nodes can pull what is here and push what is not.
//
// A repository REPOSITORY here is every image of the store whose name is
// HOST/REPOSITORY for one of Config.Hosts, in that order; what is pushed gets the
// first. Other images of the store, those pulled from elsewhere, are not served
// unless Config.Mirror says so, when ?ns=REGISTRY names theirs, as containerd asks
// a mirror.
package registry

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of what callers may ask.
const (
	// maxUploads bounds the uploads that are open at once.
	maxUploads = 64
	// maxPage bounds a page of a catalogue or of tags, and is the default.
	maxPage = 1000
	// maxName bounds a repository's name, as the specification does.
	maxName = 255
)

// Config says what is served, and to whom.
type Config struct {
	Images *image.Store
	// Hosts are the names under which the registry is known ("localhost:5000",
	// "registry.kube-system:5000"). Images of any of them are its own; at least
	// one is needed.
	Hosts []string
	// Mirror also serves what came from other registries, to those that ask for
	// it by name (?ns=docker.io).
	Mirror bool
	// Allow decides who may do what; write is false for pulls. nil lets callers
	// from this machine do everything, and others nothing.
	Allow func(r *http.Request, write bool) bool
	// Log gets what nobody else is told; nil is silence.
	Log *slog.Logger
}

// Registry is an http.Handler for /v2/. It may be used concurrently.
type Registry struct {
	cfg   Config
	log   *slog.Logger
	names *regexp.Regexp

	mu      sync.Mutex
	uploads map[string]*upload
}

// New makes a registry over a store.
func New(cfg Config) (*Registry, error) {
	if cfg.Images == nil || len(cfg.Hosts) == 0 {
		return nil, errors.New("registry: Images and at least one of Hosts are needed")
	}
	r := &Registry{cfg: cfg, log: cfg.Log, uploads: map[string]*upload{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.cfg.Allow == nil {
		r.cfg.Allow = FromHere
	}
	// The grammar of names (distribution specification, "Pulling manifests").
	r.names = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	return r, nil
}

// Close gives up the uploads that have not come to their end.
func (g *Registry) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, u := range g.uploads {
		u.blob.Abort()
		delete(g.uploads, id)
	}
}

// FromHere lets callers from this machine do everything, if they call it by one
// of its own names: a web page that has pointed its name at this machine must not
// have its visitor's browser push for it.
func FromHere(r *http.Request, _ bool) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback() && ownName(r.Host)
}

// ownName says whether a host is an address, or this machine's name for itself.
func ownName(hostport string) bool {
	name := hostport
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || net.ParseIP(name) != nil
}

// call is one request, taken apart.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	repo string
	// what is "manifests", "blobs", "uploads", "tags" or "referrers"; ref is the
	// rest of the path.
	what, ref string
}

// ServeHTTP answers.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	write := r.Method != http.MethodGet && r.Method != http.MethodHead
	if !g.cfg.Allow(r, write) {
		w.Header().Set("WWW-Authenticate", `Basic realm="sampan"`)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication is required")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "this is a registry: its API is below /v2/")
		return
	}
	if path == "" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}")) // the caller has gone, or not
		return
	}
	if path == "_catalog" {
		g.catalog(w, r)
		return
	}
	c, ok := split(path)
	if !ok || len(c.repo) > maxName || !g.names.MatchString(c.repo) {
		fail(w, http.StatusNotFound, "NAME_INVALID", "no such address; a repository's name is of lower-case letters, digits and separators")
		return
	}
	c.w, c.r = w, r
	g.route(c)
}

// split finds the repository, which may have slashes, in an address.
func split(path string) (call, bool) {
	for _, what := range []string{"/blobs/uploads/", "/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if i := strings.LastIndex(path, what); i > 0 {
			name := strings.Trim(what, "/")
			if what == "/blobs/uploads/" {
				name = "uploads"
			}
			return call{repo: path[:i], what: name, ref: path[i+len(what):]}, true
		}
	}
	if repo, ok := strings.CutSuffix(path, "/blobs/uploads"); ok {
		return call{repo: repo, what: "uploads"}, true
	}
	return call{}, false
}

// route picks who answers.
func (g *Registry) route(c call) {
	read := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	switch {
	case c.what == "manifests" && read:
		g.getManifest(c)
	case c.what == "manifests" && c.r.Method == http.MethodPut:
		g.putManifest(c)
	case c.what == "manifests" && c.r.Method == http.MethodDelete:
		g.deleteManifest(c)
	case c.what == "blobs" && read:
		g.getBlob(c)
	case c.what == "uploads" && c.r.Method == http.MethodPost && c.ref == "":
		g.beginUpload(c)
	case c.what == "uploads" && c.ref != "":
		g.upload(c)
	case c.what == "tags" && read && c.ref == "list":
		g.tags(c)
	case c.what == "referrers" && read:
		g.referrers(c)
	default:
		fail(c.w, http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is not supported")
	}
}

// fail answers with an error of the specification.
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}}) // the caller has gone, or not
}

// failed answers with an error of the store.
func (g *Registry) failed(c call, code string, err error) {
	switch {
	case errors.Is(err, image.ErrNotFound):
		fail(c.w, http.StatusNotFound, code, err.Error())
	case errors.Is(err, image.ErrInvalid):
		fail(c.w, http.StatusBadRequest, code, err.Error())
	case errors.Is(err, image.ErrTooLarge):
		fail(c.w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", err.Error())
	default:
		g.log.Error("registry", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
		fail(c.w, http.StatusInternalServerError, "UNKNOWN", "the registry could not do this; its log says why")
	}
}

func writeJSON(w http.ResponseWriter, mediaType string, v any) {
	w.Header().Set("Content-Type", mediaType)
	_ = json.NewEncoder(w).Encode(v) // the caller has gone, or not
}
