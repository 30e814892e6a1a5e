package aggregate

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/kinds/apiregistration"
)

// merged is one document of discovery with the remote groups in it.
type merged struct {
	version   int64  // of the APIServices
	localEtag string // of the document it was made of
	body      []byte
	etag      string
	kind      string
}

// Discovery shows, beside what local does, the groups of remote servers: in the
// lists of groups, ordered by the priorities of the APIServices, and as group
// documents; the document of a remote group version comes from its server.
// Without remotes, local answers alone.
func (a *Aggregator) Discovery(local http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := "/" + strings.Trim(r.URL.Path, "/")
		all, remotes, version := a.snapshot()
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		if len(remotes) == 0 || !read || !strings.HasPrefix(path, "/apis") {
			local.ServeHTTP(w, r)
			return
		}
		if gv, ok := groupVersionOf(path); ok {
			if to := remotes[gv.Version+"."+gv.Group]; to != nil {
				to.ServeHTTP(w, r)
				return
			}
			local.ServeHTTP(w, r)
			return
		}
		order := newOrder(all)
		if group, ok := strings.CutPrefix(path, "/apis/"); ok {
			a.group(w, r, local, order, group)
			return
		}
		a.groups(w, r, local, view{order, remotes, version})
	})
}

// view is one state of the APIServices.
type view struct {
	order   *order
	remotes map[string]*remote
	version int64
}

// group answers for one group of which a remote has a version.
func (a *Aggregator) group(w http.ResponseWriter, r *http.Request, local http.Handler, o *order, name string) {
	if !o.remote[name] {
		local.ServeHTTP(w, r)
		return
	}
	g := o.legacy(name)
	g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	body, err := json.Marshal(g)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	serve(w, r, merged{body: append(body, '\n'), etag: etagOf(body), kind: "application/json"})
}

// groups answers with all groups, in the form that local has chosen.
func (a *Aggregator) groups(w http.ResponseWriter, r *http.Request, local http.Handler, v view) {
	seen := &recorder{header: http.Header{}, code: http.StatusOK}
	ask := r.Clone(r.Context())
	ask.Method = http.MethodGet
	ask.Header.Del("If-None-Match")
	ask.Header.Del("Accept-Encoding")
	local.ServeHTTP(seen, ask)
	kind := seen.header.Get("Content-Type")
	if seen.code != http.StatusOK || !strings.HasPrefix(kind, "application/json") {
		local.ServeHTTP(w, r) // another form, or a fault: not for us to change
		return
	}
	whole := strings.Contains(kind, "as=APIGroupDiscoveryList")
	key, mine := kind, etagOf(seen.body.Bytes())
	a.mu.Lock()
	have, ok := a.merged[key]
	a.mu.Unlock()
	if !ok || have.version != v.version || have.localEtag != mine {
		mix := mixLegacy
		if whole {
			mix = mixWhole
		}
		body, err := mix(seen.body.Bytes(), v)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		have = merged{version: v.version, localEtag: mine, body: append(body, '\n'), etag: etagOf(body), kind: kind}
		a.mu.Lock()
		a.merged[key] = have
		a.mu.Unlock()
	}
	serve(w, r, have)
}

func serve(w http.ResponseWriter, r *http.Request, doc merged) {
	h := w.Header()
	h.Set("Content-Type", doc.kind)
	if !strings.Contains(doc.kind, ";") { // the older form, of which nobody keeps a copy
		_, _ = w.Write(doc.body) // the client has gone: nobody to tell
		return
	}
	h.Set("Vary", "Accept")
	h.Set("Etag", doc.etag)
	h.Set("Cache-Control", "public")
	if r.Header.Get("If-None-Match") == doc.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(doc.body) // the client has gone: nobody to tell
}

func etagOf(body []byte) string { return fmt.Sprintf("\"%X\"", sha256.Sum256(body)) }

func mixLegacy(local []byte, v view) ([]byte, error) {
	var list metav1.APIGroupList
	if err := json.Unmarshal(local, &list); err != nil {
		return nil, fmt.Errorf("decode own discovery: %w", err)
	}
	for name := range v.order.remote {
		list.Groups = slices.DeleteFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == name })
		list.Groups = append(list.Groups, v.order.legacy(name))
	}
	slices.SortStableFunc(list.Groups, func(x, y metav1.APIGroup) int { return v.order.compare(x.Name, y.Name) })
	return json.Marshal(list)
}

func mixWhole(local []byte, v view) ([]byte, error) {
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(local, &list); err != nil {
		return nil, fmt.Errorf("decode own discovery: %w", err)
	}
	for name := range v.order.remote {
		i := slices.IndexFunc(list.Items, func(g apidiscoveryv2.APIGroupDiscovery) bool { return g.Name == name })
		if i < 0 {
			i = len(list.Items)
			list.Items = append(list.Items, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		had := list.Items[i].Versions
		list.Items[i].Versions = nil
		for _, s := range v.order.groups[name] {
			if r := v.remotes[s.Name]; r != nil {
				list.Items[i].Versions = append(list.Items[i].Versions, r.discovered())
				continue
			}
			for _, own := range had {
				if own.Version == s.Spec.Version {
					list.Items[i].Versions = append(list.Items[i].Versions, own)
				}
			}
		}
	}
	slices.SortStableFunc(list.Items, func(x, y apidiscoveryv2.APIGroupDiscovery) int { return v.order.compare(x.Name, y.Name) })
	return json.Marshal(list)
}

// order is the order of groups, and of the versions in each.
type order struct {
	groups map[string][]*apiregistrationv1.APIService // versions, the preferred one first
	rank   map[string]int32
	remote map[string]bool // groups with a remote version
}

func newOrder(all []*apiregistrationv1.APIService) *order {
	o := &order{groups: map[string][]*apiregistrationv1.APIService{}, remote: map[string]bool{},
		rank: map[string]int32{apiregistrationv1.GroupName: ownGroup}}
	for _, s := range all {
		name := s.Spec.Group
		o.groups[name] = append(o.groups[name], s)
		o.rank[name] = max(o.rank[name], s.Spec.GroupPriorityMinimum)
		o.remote[name] = o.remote[name] || !apiregistration.Local(s)
	}
	for name, versions := range o.groups {
		if !o.remote[name] {
			delete(o.remote, name)
		}
		slices.SortStableFunc(versions, func(x, y *apiregistrationv1.APIService) int {
			return cmp.Or(cmp.Compare(y.Spec.VersionPriority, x.Spec.VersionPriority), version.CompareKubeAwareVersionStrings(y.Spec.Version, x.Spec.Version))
		})
	}
	return o
}

// compare puts groups of higher priority first, and equals by name.
func (o *order) compare(x, y string) int {
	return cmp.Or(cmp.Compare(o.rank[y], o.rank[x]), strings.Compare(x, y))
}

// legacy is a group in the older form.
func (o *order) legacy(name string) metav1.APIGroup {
	g := metav1.APIGroup{Name: name}
	for _, s := range o.groups[name] {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + s.Spec.Version, Version: s.Spec.Version})
	}
	if len(g.Versions) > 0 {
		g.PreferredVersion = g.Versions[0]
	}
	return g
}

// recorder keeps an answer instead of sending it.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
