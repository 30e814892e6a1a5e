package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/image/remote"
)

// maxSharing bounds the blobs that a node sends to others at once; a further caller
// is told to go elsewhere.
const maxSharing = 8

// Sharing is an http.Handler for /v2/ by which other nodes get the content that a
// node has, by digest alone, whatever repository they say. It knows no tags and
// takes nothing in: who may have an image is not decided here, but before, where its
// name was looked up. It may be used concurrently.
type Sharing struct {
	images *image.Store
	allow  func(*http.Request) bool
	slots  chan struct{}
}

// NewSharing shares a store with those whom allow lets through.
func NewSharing(images *image.Store, allow func(*http.Request) bool) *Sharing {
	return &Sharing{images: images, allow: allow, slots: make(chan struct{}, maxSharing)}
}

// ServeHTTP answers.
func (s *Sharing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	steadily := &steady{ResponseWriter: w, control: http.NewResponseController(w)}
	w = steadily
	steadily.extend() // an earlier answer's deadline may be over
	if !s.allow(r) {
		fail(w, http.StatusForbidden, "DENIED", "nodes of this cluster may ask here, with their certificate")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "content is only read here")
		return
	}
	c, ok := split(strings.TrimPrefix(r.URL.Path, "/v2/"))
	d := digest.Digest(c.ref)
	if !ok || c.what != "blobs" && c.what != "manifests" || d.Validate() != nil {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "content is asked for by its digest here")
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", fmt.Sprintf("%d blobs are being sent: ask another", maxSharing))
		return
	}
	s.send(w, r, d)
}

// send sends a blob, or a part of it.
func (s *Sharing) send(w http.ResponseWriter, r *http.Request, d digest.Digest) {
	f, err := s.images.Content(d)
	if err != nil {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("there is no %q here", d))
		return
	}
	defer f.Close()
	sendBlob(w, r, d, f)
}

// sendStall is how long a receiver may take for one piece.
const sendStall = 30 * time.Second

// steady gives up a receiver that does not take its bytes.
type steady struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (s *steady) Write(p []byte) (int, error) {
	s.extend()
	return s.ResponseWriter.Write(p)
}

func (s *steady) extend() {
	_ = s.control.SetWriteDeadline(time.Now().Add(sendStall)) // without deadlines, the receiver's are the bound
}

// Unwrap is for http.ResponseController.
func (s *steady) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// NodeHeader is where Origin says which node has the content.
const NodeHeader = "Sampan-Node"

// Origin is an http.Handler that tells nodes what a name leads to in the cluster
// itself: ?ref=REFERENCE of an image that was built, loaded, tagged or pushed to
// the server, and of no other. Who may ask is judged before.
type Origin struct {
	// Images is the server's store; Hosts are the names of its registry, as in
	// Config, none without one. Node is the name of the server's node.
	Images *image.Store
	Hosts  []string
	Node   string
}

// ServeHTTP answers with a manifest or index.
func (o Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ref := r.URL.Query().Get("ref")
	d, raw, ok := o.Find(ref)
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("%q is no image of this cluster's own", ref))
		return
	}
	w.Header().Set("Content-Type", remote.MediaTypeOf(raw))
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.Header().Set(NodeHeader, o.Node)
	_, _ = w.Write(raw) // the caller has gone, or not
}

// Find is what a reference leads to, under any of the registry's names.
func (o Origin) Find(ref string) (digest.Digest, []byte, bool) {
	if d, raw, err := o.Images.Made(ref); err == nil {
		return d, raw, true
	}
	host, rest, _ := strings.Cut(ref, "/")
	for _, own := range o.Hosts {
		if own != host {
			continue
		}
		for _, other := range o.Hosts {
			if d, raw, err := o.Images.Made(other + "/" + rest); err == nil {
				return d, raw, true
			}
		}
	}
	return "", nil, false
}
