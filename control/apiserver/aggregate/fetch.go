package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// maxDocument bounds what a remote server may say of itself, in bytes.
const maxDocument = 32 << 20

// wholeForms are the media types of discovery in one answer.
const wholeForms = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

// refresh takes over what the server shows of the group version. When it cannot
// be had, what was known stays, marked as stale.
func (r *remote) refresh(ctx context.Context) {
	shown, err := r.fetchWhole(ctx)
	if err == nil && shown == nil {
		shown, err = r.fetchVersion(ctx)
	}
	if err != nil {
		r.owner.cfg.Log.Debug("discovery of a remote server", "groupVersion", r.gv.String(), "error", err)
		r.spoil()
		return
	}
	shown.Version, shown.Freshness = r.gv.Version, apidiscoveryv2.DiscoveryFreshnessCurrent
	r.show(shown, false)
	r.dropSchema()
}

// spoil marks what is known as stale.
func (r *remote) spoil() {
	r.mu.Lock()
	shown := r.shown
	r.mu.Unlock()
	r.show(shown, true)
}

func (r *remote) show(shown *apidiscoveryv2.APIVersionDiscovery, stale bool) {
	r.mu.Lock()
	differ := r.stale != stale || !kinds.Same(r.shown, shown)
	r.shown, r.stale = shown, stale
	r.mu.Unlock()
	if differ {
		r.owner.touched()
	}
}

// get reads one document; ok is false when the server has none.
func (r *remote) get(ctx context.Context, path, accept string) (body []byte, kind string, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	answer, err := r.own(ctx, path, accept)
	if err != nil {
		return nil, "", false, fmt.Errorf("get %q: %w", path, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusNotAcceptable {
		return nil, "", false, nil
	}
	if answer.StatusCode != http.StatusOK {
		return nil, "", false, fmt.Errorf("get %q: status %d", path, answer.StatusCode)
	}
	body, err = io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err != nil {
		return nil, "", false, fmt.Errorf("get %q: %w", path, err)
	}
	if len(body) > maxDocument {
		return nil, "", false, fmt.Errorf("get %q: more than %d bytes", path, maxDocument)
	}
	return body, answer.Header.Get("Content-Type"), true, nil
}

// fetchWhole asks for the newer form; nil without an error: the server has none.
func (r *remote) fetchWhole(ctx context.Context) (*apidiscoveryv2.APIVersionDiscovery, error) {
	body, kind, ok, err := r.get(ctx, "/apis", wholeForms)
	if err != nil || !ok || !strings.Contains(kind, "as=APIGroupDiscoveryList") {
		return nil, err
	}
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode aggregated discovery: %w", err)
	}
	for _, g := range list.Items {
		for i := range g.Versions {
			if g.Name == r.gv.Group && g.Versions[i].Version == r.gv.Version {
				return &g.Versions[i], nil
			}
		}
	}
	return nil, nil
}

// fetchVersion asks for the older form and makes the newer one of it.
func (r *remote) fetchVersion(ctx context.Context) (*apidiscoveryv2.APIVersionDiscovery, error) {
	body, _, ok, err := r.get(ctx, "/apis/"+r.gv.Group+"/"+r.gv.Version, "application/json")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("no discovery document")
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode discovery: %w", err)
	}
	return r.convert(list.APIResources), nil
}

func (r *remote) convert(all []metav1.APIResource) *apidiscoveryv2.APIVersionDiscovery {
	out := &apidiscoveryv2.APIVersionDiscovery{}
	at := map[string]int{}
	parent := func(name string) *apidiscoveryv2.APIResourceDiscovery {
		i, ok := at[name]
		if !ok {
			i = len(out.Resources)
			at[name] = i
			out.Resources = append(out.Resources, apidiscoveryv2.APIResourceDiscovery{Resource: name, ResponseKind: &metav1.GroupVersionKind{}})
		}
		return &out.Resources[i]
	}
	for _, res := range all {
		name, sub, isSub := strings.Cut(res.Name, "/")
		kind := &metav1.GroupVersionKind{Group: res.Group, Version: res.Version, Kind: res.Kind}
		if kind.Group == "" && kind.Version == "" {
			kind.Group, kind.Version = r.gv.Group, r.gv.Version
		}
		scope := apidiscoveryv2.ScopeCluster
		if res.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		p := parent(name)
		if p.Scope == "" {
			p.Scope = scope
		}
		if isSub {
			p.Subresources = append(p.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: res.Verbs})
			continue
		}
		p.ResponseKind, p.Scope, p.SingularResource = kind, scope, res.SingularName
		p.Verbs, p.ShortNames, p.Categories = res.Verbs, res.ShortNames, res.Categories
	}
	return out
}

// discovered is what discovery shows of the group version now.
func (r *remote) discovered() apidiscoveryv2.APIVersionDiscovery {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := apidiscoveryv2.APIVersionDiscovery{Version: r.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale}
	if r.shown != nil {
		out = *r.shown.DeepCopy()
		if r.stale {
			out.Freshness = apidiscoveryv2.DiscoveryFreshnessStale
		}
	}
	return out
}
