package registry

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/sampan-dev/sampan/node/image"
)

// uploadLife is how long an upload may be left alone.
const uploadLife = time.Hour

// upload is a blob that arrives in pieces. Its pieces come one at a time.
type upload struct {
	mu   sync.Mutex
	repo string
	blob *image.Upload
	used time.Time
}

// beginUpload mounts a blob from another repository, takes one whole, or opens an
// upload.
func (g *Registry) beginUpload(c call) {
	q := c.r.URL.Query()
	if from := q.Get("from"); from != "" && g.mount(c, from, digest.Digest(q.Get("mount"))) {
		return
	}
	blob, err := g.cfg.Images.NewUpload()
	if err != nil {
		g.failed(c, "BLOB_UPLOAD_INVALID", err)
		return
	}
	if want := q.Get("digest"); want != "" {
		defer blob.Abort()
		u := &upload{repo: c.repo, blob: blob}
		if _, err := io.Copy(blob, c.r.Body); err != nil {
			g.failed(c, "BLOB_UPLOAD_INVALID", err)
			return
		}
		g.commit(c, u, want)
		return
	}
	id := rand.Text()
	if !g.keep(id, &upload{repo: c.repo, blob: blob, used: time.Now()}) {
		blob.Abort()
		c.w.Header().Set("Retry-After", "10")
		fail(c.w, http.StatusTooManyRequests, "TOOMANYREQUESTS", fmt.Sprintf("%d uploads are open: try again later", maxUploads))
		return
	}
	c.answerUpload(id, 0, http.StatusAccepted)
}

// mount answers when the blob is in another repository here, or in the same.
func (g *Registry) mount(c call, from string, d digest.Digest) bool {
	if d.Validate() != nil {
		return false
	}
	for _, host := range g.cfg.Hosts {
		f, err := g.cfg.Images.BlobOf(host+"/"+from, d)
		if err != nil {
			continue
		}
		f.Close()
		if g.cfg.Images.Pin(g.cfg.Hosts[0]+"/"+c.repo, d) != nil {
			return false
		}
		c.answerBlob(d)
		return true
	}
	return false
}

// keep remembers an upload, and forgets those that were left alone.
func (g *Registry) keep(id string, u *upload) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for other, old := range g.uploads {
		if time.Since(old.used) > uploadLife && old.mu.TryLock() {
			old.blob.Abort()
			old.mu.Unlock()
			delete(g.uploads, other)
		}
	}
	if len(g.uploads) >= maxUploads {
		return false
	}
	g.uploads[id] = u
	return true
}

// find returns an upload of the repository, locked.
func (g *Registry) find(c call) (*upload, bool) {
	g.mu.Lock()
	u := g.uploads[c.ref]
	if u != nil {
		u.used = time.Now()
	}
	g.mu.Unlock()
	if u == nil || u.repo != c.repo {
		return nil, false
	}
	u.mu.Lock()
	return u, true
}

func (g *Registry) drop(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.uploads, id)
}

// upload goes on with one that is open.
func (g *Registry) upload(c call) {
	u, ok := g.find(c)
	if !ok {
		fail(c.w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload; begin anew")
		return
	}
	defer u.mu.Unlock()
	switch c.r.Method {
	case http.MethodGet:
		c.answerUpload(c.ref, u.blob.Size(), http.StatusNoContent)
	case http.MethodDelete:
		u.blob.Abort()
		g.drop(c.ref)
		c.w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		if g.append(c, u) {
			c.answerUpload(c.ref, u.blob.Size(), http.StatusAccepted)
		}
	case http.MethodPut:
		if !g.append(c, u) {
			return
		}
		g.commit(c, u, c.r.URL.Query().Get("digest"))
		u.blob.Abort()
		g.drop(c.ref)
	default:
		fail(c.w, http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is not supported")
	}
}

// append writes a piece, which must begin where the last ended.
func (g *Registry) append(c call, u *upload) bool {
	if span := c.r.Header.Get("Content-Range"); span != "" {
		first, _, _ := strings.Cut(strings.TrimPrefix(span, "bytes "), "-")
		if at, err := strconv.ParseInt(first, 10, 64); err != nil || at != u.blob.Size() {
			c.answerUpload(c.ref, u.blob.Size(), http.StatusRequestedRangeNotSatisfiable)
			return false
		}
	}
	_, err := io.Copy(u.blob, c.r.Body)
	if err == nil {
		return true
	}
	if errors.Is(err, image.ErrTooLarge) {
		g.failed(c, "SIZE_INVALID", err)
		return false
	}
	fail(c.w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the piece ended early; ask with GET how far it came")
	return false
}

// commit verifies and keeps a blob.
func (g *Registry) commit(c call, u *upload, want string) {
	d := digest.Digest(want)
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		fail(c.w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is no sha256 digest", want))
		return
	}
	if err := u.blob.Commit(g.cfg.Hosts[0]+"/"+c.repo, d); err != nil {
		g.failed(c, "DIGEST_INVALID", err)
		return
	}
	c.answerBlob(d)
}

func (c call) answerUpload(id string, size int64, status int) {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo+"/blobs/uploads/"+id)
	h.Set("Docker-Upload-UUID", id)
	h.Set("Range", fmt.Sprintf("0-%d", max(0, size-1)))
	h.Set("Content-Length", "0")
	c.w.WriteHeader(status)
}

func (c call) answerBlob(d digest.Digest) {
	c.w.Header().Set("Location", "/v2/"+c.repo+"/blobs/"+d.String())
	c.w.Header().Set("Docker-Content-Digest", d.String())
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
}

// putManifest takes in an image of which the blobs have been pushed.
func (g *Registry) putManifest(c call) {
	raw, err := io.ReadAll(io.LimitReader(c.r.Body, image.MaxManifest+1))
	if err != nil {
		fail(c.w, http.StatusBadRequest, "MANIFEST_INVALID", "the manifest ended early")
		return
	}
	if len(raw) > image.MaxManifest {
		fail(c.w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("a manifest has at most %d bytes", image.MaxManifest))
		return
	}
	if strings.Contains(c.ref, ":") && digest.FromBytes(raw).String() != c.ref {
		fail(c.w, http.StatusBadRequest, "DIGEST_INVALID", "the manifest has another digest")
		return
	}
	d, err := g.cfg.Images.Receive(c.r.Context(), g.cfg.Hosts[0]+"/"+c.repo, c.ref, raw)
	if errors.Is(err, image.ErrNotFound) {
		fail(c.w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", err.Error())
		return
	}
	if err != nil {
		g.failed(c, "MANIFEST_INVALID", err)
		return
	}
	var m struct {
		Subject *struct{ Digest digest.Digest } `json:"subject"`
	}
	if json.Unmarshal(raw, &m) == nil && m.Subject != nil {
		c.w.Header().Set("OCI-Subject", m.Subject.Digest.String())
	}
	c.w.Header().Set("Location", "/v2/"+c.repo+"/manifests/"+d.String())
	c.w.Header().Set("Docker-Content-Digest", d.String())
	c.w.WriteHeader(http.StatusCreated)
}

// deleteManifest takes away a tag, or everything of a digest.
func (g *Registry) deleteManifest(c call) {
	for _, name := range g.storeNames(c) {
		sep := ":"
		if strings.Contains(c.ref, ":") {
			sep = "@"
		}
		if _, _, err := g.cfg.Images.Manifest(name, c.ref); err != nil {
			continue
		}
		if err := g.cfg.Images.Untag(name, sep+c.ref); err != nil {
			g.failed(c, "MANIFEST_UNKNOWN", err)
			return
		}
		c.w.WriteHeader(http.StatusAccepted)
		return
	}
	fail(c.w, http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("%s has no manifest %q", c.repo, c.ref))
}
