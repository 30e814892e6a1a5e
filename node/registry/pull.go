package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/image/remote"
)

// names are what a repository is called in the store.
func (g *Registry) storeNames(c call) []string {
	if ns := c.r.URL.Query().Get("ns"); ns != "" && g.cfg.Mirror && !slices.Contains(g.cfg.Hosts, ns) {
		return []string{ns + "/" + c.repo}
	}
	var all []string
	for _, h := range g.cfg.Hosts {
		all = append(all, h+"/"+c.repo)
	}
	return all
}

// getManifest serves a manifest or index by tag or digest.
func (g *Registry) getManifest(c call) {
	for _, name := range g.storeNames(c) {
		d, raw, err := g.cfg.Images.Manifest(name, c.ref)
		if err != nil {
			continue
		}
		c.w.Header().Set("Content-Type", remote.MediaTypeOf(raw))
		c.w.Header().Set("Docker-Content-Digest", d.String())
		c.w.Header().Set("ETag", `"`+d.String()+`"`)
		c.w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		if c.r.Method == http.MethodGet {
			_, _ = c.w.Write(raw) // the caller has gone, or not
		}
		return
	}
	fail(c.w, http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("%s has no manifest %q", c.repo, c.ref))
}

// getBlob serves a blob that an image of the repository has, or a part of it.
func (g *Registry) getBlob(c call) {
	d := digest.Digest(c.ref)
	if d.Validate() != nil {
		fail(c.w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is no digest", c.ref))
		return
	}
	for _, name := range g.storeNames(c) {
		f, err := g.cfg.Images.BlobOf(name, d)
		if err != nil {
			continue
		}
		defer f.Close() //nolint:gocritic // the loop ends here
		c.w.Header().Set("ETag", `"`+d.String()+`"`)
		sendBlob(c.w, c.r, d, f)
		return
	}
	fail(c.w, http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("%s has no blob %q", c.repo, d))
}

// toTheEnd is a range of a blob that its end is in, as of a pull that goes on.
var toTheEnd = regexp.MustCompile(`^bytes=(\d+-|-\d+)$`)

// sendBlob sends a blob, or a part of it. What is damaged is not sent whole: the connection
// ends before its last bytes, and whoever asks again is told that it is not here.
func sendBlob(w http.ResponseWriter, r *http.Request, d digest.Digest, f *image.Guarded) {
	if span := r.Header.Get("Range"); span != "" && !toTheEnd.MatchString(span) && f.Prove() != nil {
		w.Header().Del("ETag")
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("the blob %q is damaged here", d))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	http.ServeContent(w, r, "", time.Time{}, f)
}

// repositories are those that are served, with their tags.
func (g *Registry) repositories() (map[string][]string, error) {
	names, err := g.cfg.Images.Names()
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, ref := range names {
		for _, h := range g.cfg.Hosts {
			rest, ok := strings.CutPrefix(ref, h+"/")
			if !ok {
				continue
			}
			at := strings.LastIndexByte(rest, ':')
			repo, tag := rest[:at], rest[at+1:]
			if !slices.Contains(found[repo], tag) {
				found[repo] = append(found[repo], tag)
			}
		}
	}
	return found, nil
}

// page cuts a sorted list as ?n= and ?last= ask, and says where the next begins.
func page(w http.ResponseWriter, r *http.Request, all []string) []string {
	slices.Sort(all)
	n := maxPage
	if given, err := strconv.Atoi(r.URL.Query().Get("n")); err == nil && given >= 0 && given < n {
		n = given
	}
	if last := r.URL.Query().Get("last"); last != "" {
		from, has := slices.BinarySearch(all, last)
		if has {
			from++
		}
		all = all[from:]
	}
	if len(all) > n {
		all = all[:n]
		if n > 0 {
			q := url.Values{"n": {strconv.Itoa(n)}, "last": {all[n-1]}}
			w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, q.Encode()))
		}
	}
	return all
}

func (g *Registry) catalog(w http.ResponseWriter, r *http.Request) {
	found, err := g.repositories()
	if err != nil {
		g.failed(call{w: w, r: r}, "UNKNOWN", err)
		return
	}
	all := []string{}
	for repo := range found {
		all = append(all, repo)
	}
	writeJSON(w, "application/json", map[string][]string{"repositories": page(w, r, all)})
}

func (g *Registry) tags(c call) {
	found, err := g.repositories()
	if err != nil {
		g.failed(c, "UNKNOWN", err)
		return
	}
	tags, ok := found[c.repo]
	if !ok {
		fail(c.w, http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("no repository is called %q", c.repo))
		return
	}
	writeJSON(c.w, "application/json", map[string]any{"name": c.repo, "tags": page(c.w, c.r, tags)})
}

// referrers lists the manifests of the repository whose subject a digest is.
func (g *Registry) referrers(c call) {
	d := digest.Digest(c.ref)
	if d.Validate() != nil {
		fail(c.w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is no digest", c.ref))
		return
	}
	list := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{},
	}
	wanted := c.r.URL.Query().Get("artifactType")
	for _, name := range g.storeNames(c) {
		all, err := g.cfg.Images.Roots(name)
		if err != nil {
			g.failed(c, "UNKNOWN", err)
			return
		}
		for _, root := range all {
			desc, ok := g.refers(name, root, d)
			if ok && (wanted == "" || wanted == desc.ArtifactType) {
				list.Manifests = append(list.Manifests, desc)
			}
		}
	}
	if wanted != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	writeJSON(c.w, ocispec.MediaTypeImageIndex, list)
}

// refers describes a manifest if its subject is d.
func (g *Registry) refers(name string, root, d digest.Digest) (ocispec.Descriptor, bool) {
	_, raw, err := g.cfg.Images.Manifest(name, root.String())
	if err != nil {
		return ocispec.Descriptor{}, false
	}
	var m ocispec.Manifest
	if json.Unmarshal(raw, &m) != nil || m.Subject == nil || m.Subject.Digest != d {
		return ocispec.Descriptor{}, false
	}
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType
	}
	return ocispec.Descriptor{
		MediaType: remote.MediaTypeOf(raw), Digest: root, Size: int64(len(raw)), ArtifactType: kind, Annotations: m.Annotations,
	}, true
}
