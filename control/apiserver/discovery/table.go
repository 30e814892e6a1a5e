package discovery

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/sampan-dev/sampan/kinds"
)

// group is an API group with its versions, the preferred one first.
type group struct {
	name     string
	versions []*groupVersion
}

// groupVersion is what one version of a group serves, ordered by resource.
type groupVersion struct {
	schema.GroupVersion
	kinds []*kinds.Kind
}

// arrange sorts the table: the core group, then the others by name.
func arrange(table []*kinds.Kind) []*group {
	byName := map[string]*group{}
	var groups []*group
	for _, k := range table {
		gv := k.GVK.GroupVersion()
		g := byName[gv.Group]
		if g == nil {
			g = &group{name: gv.Group}
			byName[gv.Group] = g
			groups = append(groups, g)
		}
		i := slices.IndexFunc(g.versions, func(v *groupVersion) bool { return v.GroupVersion == gv })
		if i < 0 {
			i = len(g.versions)
			g.versions = append(g.versions, &groupVersion{GroupVersion: gv})
		}
		g.versions[i].kinds = append(g.versions[i].kinds, k)
	}
	slices.SortFunc(groups, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	for _, g := range groups {
		slices.SortFunc(g.versions, func(a, b *groupVersion) int {
			return version.CompareKubeAwareVersionStrings(b.Version, a.Version)
		})
		for _, v := range g.versions {
			slices.SortFunc(v.kinds, func(a, b *kinds.Kind) int { return strings.Compare(a.Resource, b.Resource) })
		}
	}
	return groups
}

// custom says that all of the group are users' own kinds.
func (g *group) custom() bool {
	for _, v := range g.versions {
		if slices.ContainsFunc(v.kinds, func(k *kinds.Kind) bool { return k.Custom == nil }) {
			return false
		}
	}
	return true
}

func (v *groupVersion) path() string {
	if v.Group == "" {
		return "/api/" + v.Version
	}
	return "/apis/" + v.Group + "/" + v.Version
}

func (g *group) versionNames() []string {
	var names []string
	for _, v := range g.versions {
		names = append(names, v.Version)
	}
	return names
}

func (g *group) legacy() metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.String(), Version: v.Version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

// standalone is the group as a document of its own.
func (g *group) standalone() *metav1.APIGroup {
	out := g.legacy()
	out.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	return &out
}

// allVerbs are those of a kind that names none, in the order discovery has them.
var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// customVerbs are those of a custom kind, in the order in which upstream has them.
var customVerbs = []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}

func verbsOf(k *kinds.Kind) []string {
	switch {
	case k.Custom != nil && k.Verbs == nil:
		return customVerbs
	case k.Verbs != nil:
		return ordered(k.Verbs)
	case k.Storage == "":
		return []string{"create"}
	}
	return allVerbs
}

func ordered(verbs []string) []string {
	verbs = slices.Clone(verbs)
	slices.Sort(verbs)
	return verbs
}

// resourceList is the legacy document of a group version.
func (v *groupVersion) resourceList() *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: v.String(), APIResources: []metav1.APIResource{}}
	if v.Group == "" {
		list.APIVersion = "" // which upstream leaves out, as its first clients knew it
	}
	for _, k := range v.kinds {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: k.Resource, SingularName: k.Singular,
			Namespaced: k.Namespaced, Kind: k.GVK.Kind, Verbs: verbsOf(k), ShortNames: k.Short, Categories: k.Categories,
			StorageVersionHash: storageHash(k)})
		for _, s := range subresources(k) {
			r := metav1.APIResource{Name: k.Resource + "/" + s.Name, Namespaced: k.Namespaced, Kind: s.GVK.Kind, Verbs: ordered(s.Verbs)}
			if s.GVK.GroupVersion() != v.GroupVersion {
				r.Group, r.Version = s.GVK.Group, s.GVK.Version
			}
			list.APIResources = append(list.APIResources, r)
		}
	}
	return list
}

// storageHash is by which clients see that a kind is stored in another version than
// before: upstream's eight bytes, and "" for what is not stored, or in a version that
// is not served.
func storageHash(k *kinds.Kind) string {
	if k.Storage == "" || k.Custom != nil && !k.Custom.StoredServed {
		return ""
	}
	stored := k.GVK
	switch {
	case k.View != nil:
		stored = k.View.Stored
	case k.Custom != nil:
		stored = k.Custom.Stored
	}
	sum := sha256.Sum256([]byte(stored.Group + "/" + stored.Version + "/" + stored.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// subresources are the kind's, by name, with their kind filled in.
func subresources(k *kinds.Kind) []kinds.Subresource {
	subs := slices.Clone(k.Subresources)
	for i := range subs {
		if subs[i].GVK.Empty() {
			subs[i].GVK = k.GVK
		}
	}
	slices.SortFunc(subs, func(a, b kinds.Subresource) int { return strings.Compare(a.Name, b.Name) })
	if k.Custom != nil {
		slices.Reverse(subs) // upstream has the status before the scale
	}
	return subs
}

// aggregate is the one answer that holds everything: of the core group, or of
// all the others.
func aggregate(groups []*group, core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	list := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: apidiscoveryv2.SchemeGroupVersion.String()},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for _, g := range groups {
		if (g.name == "") != core {
			continue
		}
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			item.Versions = append(item.Versions, v.aggregated())
		}
		list.Items = append(list.Items, item)
	}
	return list
}

func (v *groupVersion) aggregated() apidiscoveryv2.APIVersionDiscovery {
	out := apidiscoveryv2.APIVersionDiscovery{Version: v.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	for _, k := range v.kinds {
		r := apidiscoveryv2.APIResourceDiscovery{Resource: k.Resource, ResponseKind: v.responseKind(k, k.GVK), Scope: apidiscoveryv2.ScopeCluster,
			SingularResource: k.Singular, Verbs: verbsOf(k), ShortNames: k.Short, Categories: k.Categories}
		if k.Namespaced {
			r.Scope = apidiscoveryv2.ScopeNamespace
		}
		for _, s := range subresources(k) {
			r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource: s.Name, ResponseKind: v.responseKind(k, s.GVK), Verbs: ordered(s.Verbs)})
		}
		out.Resources = append(out.Resources, r)
	}
	return out
}

// responseKind is what is answered. As with upstream, a built-in kind of the group
// version itself does not name that again.
func (v *groupVersion) responseKind(k *kinds.Kind, gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
	if k.Custom == nil && gvk.GroupVersion() == v.GroupVersion {
		return &metav1.GroupVersionKind{Kind: gvk.Kind}
	}
	return &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
}
