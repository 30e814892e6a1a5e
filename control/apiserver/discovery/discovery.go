// Package discovery tells clients what this server serves, in both forms that
// they ask for: the legacy lists, one document a group version, and the
// aggregated one, all in a single answer. Both are derived from the kind table.
//
// Facts: k8s.io/api/apidiscovery/v2 and the discovery types of meta/v1.
package discovery

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/speak"
	"github.com/sampan-dev/sampan/kinds"
)

// Handler serves /api, /apis and what is directly below them. Safe for
// concurrent use.
type Handler struct {
	table  func() []*kinds.Kind
	server string
	docs   atomic.Pointer[documents]
}

// New returns a Handler over the kinds that table gives, in table's order;
// server is the "host:port" that /api names.
func New(table func() []*kinds.Kind, server string) *Handler {
	return &Handler{table: table, server: server}
}

// documents are everything that can be asked for, encoded, as one state of the
// table has it.
type documents struct {
	of []*kinds.Kind
	// legacy and aggregated are by path.
	legacy, aggregated map[string]document
	// built has the paths of the groups that have kinds of the server's own.
	built map[string]bool
}

type document struct {
	body []byte
	etag string
}

// Serves says whether path is one of discovery's: at most a group and a version.
func Serves(path string) bool {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	return parts[0] == "api" && len(parts) <= 2 || parts[0] == "apis" && len(parts) <= 3
}

// ServeHTTP answers with the form that the client prefers, or 304 when it has it
// already.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		speak.Refuse(w, r, apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false))
		return
	}
	docs, err := h.current()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	path := "/" + strings.Trim(r.URL.Path, "/")
	doc, ok := docs.legacy[path]
	contentType := "application/json"
	if all, has := docs.aggregated[path]; has && wantsAggregated(r.Header) {
		doc, contentType = all, aggregatedType
	}
	if !ok && docs.knows(path) { // the group is served, in other versions
		speak.Refuse(w, r, apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false))
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", contentType)
	if doc.etag == "" { // of what is only a part, upstream lets nobody keep a copy
		_, _ = w.Write(doc.body) // the client has gone: nobody to tell
		return
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Etag", doc.etag)
	w.Header().Set("Cache-Control", "public")
	if r.Header.Get("If-None-Match") == doc.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(doc.body) // the client has gone: nobody to tell
}

// knows says whether path is a version of a group that the server itself has. To
// upstream, a custom group is nothing but its versions.
func (d *documents) knows(path string) bool {
	above := path[:strings.LastIndexByte(path, '/')] // path begins with one
	return above == "/api" || d.built[above]
}

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// wantsAggregated: the client names the aggregated form, if only after others.
func wantsAggregated(h http.Header) bool {
	_, aggregated, _ := chosen(h, true)
	return aggregated
}

// current gives the documents of the table as it is now, made anew when it has
// changed.
func (h *Handler) current() (*documents, error) {
	now := h.table()
	if have := h.docs.Load(); have != nil && slices.Equal(have.of, now) {
		return have, nil
	}
	made, err := h.build(now)
	if err != nil {
		return nil, err
	}
	h.docs.Store(made)
	return made, nil
}

func (h *Handler) build(table []*kinds.Kind) (*documents, error) {
	groups := arrange(table)
	d := &documents{of: table, legacy: map[string]document{}, aggregated: map[string]document{}, built: map[string]bool{}}
	add := func(into map[string]document, path string, obj any) error {
		body, err := json.Marshal(obj)
		if err != nil {
			return fmt.Errorf("encode discovery of %q: %w", path, err)
		}
		into[path] = document{body: append(body, '\n')}
		return nil
	}
	tagged := func(path string, obj any) error {
		err := add(d.aggregated, path, obj)
		body := d.aggregated[path].body
		d.aggregated[path] = document{body: body, etag: fmt.Sprintf("%q", fmt.Sprintf("%X", sha256.Sum256(body)))}
		return err
	}
	core := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: h.server}}}
	all := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	var err error
	for _, g := range groups {
		if g.name == "" {
			core.Versions = g.versionNames()
		} else {
			all.Groups = append(all.Groups, g.legacy())
			err = firstOf(err, add(d.legacy, "/apis/"+g.name, g.standalone()))
		}
		if !g.custom() {
			d.built["/apis/"+g.name] = true
		}
		for _, v := range g.versions {
			err = firstOf(err, add(d.legacy, v.path(), v.resourceList()))
		}
	}
	err = firstOf(err, add(d.legacy, "/api", core))
	err = firstOf(err, add(d.legacy, "/apis", all))
	err = firstOf(err, tagged("/api", aggregate(groups, true)))
	err = firstOf(err, tagged("/apis", aggregate(groups, false)))
	return d, err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
