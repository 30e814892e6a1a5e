package openapi

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Schemas that many operations use.
const (
	metaModels      = "io.k8s.apimachinery.pkg.apis.meta.v1."
	statusModel     = metaModels + "Status"
	objectMetaModel = metaModels + "ObjectMeta"
	optionsModel    = metaModels + "DeleteOptions"
	patchModel      = metaModels + "Patch"
	watchModel      = metaModels + "WatchEvent"
	// textModel stands for what no schema describes.
	textModel = "string"
)

// patchMedia are the formats of a patch.
var patchMedia = []string{"application/json-patch+json", "application/merge-patch+json",
	"application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor"}

// pathItem is what may be done at one path.
type pathItem struct {
	params     []parameter // of all its operations
	operations []operation
}

// operation is one method at a path.
type operation struct {
	method string
	id     string // upstream's, by which generated clients call it
	about  string
	tag    string
	action string                  // "" for what is about no kind
	gvk    schema.GroupVersionKind // of what is sent and answered
	body   string                  // the model of what is sent; "" for none
	answer string                  // the model of what comes back
	codes  []string                // of success, besides 200
	query  []parameter
	// takes and gives are media types.
	takes, gives []string
}

// site is a kind with all that the operations at its paths have in common.
type site struct {
	*kinds.Kind
	group       string // as in names of operations
	tag         string
	one, list   string // models
	watched     bool
	base, watch string // the paths of its group version, and of its old watches
}

func (d *definitions) site(k *kinds.Kind) *site {
	s := &site{Kind: k, group: groupName(k.GVK.Group) + upperFirst(k.GVK.Version), tag: tagOf(k.GVK.GroupVersion())}
	s.one, s.list = d.models(k)
	s.watched = slices.Contains(verbs(k), "watch")
	s.base = "/" + groupPath(k)
	s.watch = s.base + "/watch"
	return s
}

// paths are all paths of a kind.
func (d *definitions) paths(k *kinds.Kind) map[string]*pathItem {
	s := d.site(k)
	out := map[string]*pathItem{}
	scope := ""
	if k.Namespaced {
		scope = "/namespaces/{namespace}"
	}
	all := &pathItem{params: s.inPath("", pretty)}
	one := &pathItem{params: s.inPath(k.GVK.Kind, pretty)}
	for _, verb := range verbs(k) {
		switch verb {
		case "list", "create", "deletecollection":
			all.operations = append(all.operations, s.operation(verb))
		case "get", "update", "patch", "delete":
			one.operations = append(one.operations, s.operation(verb))
		}
	}
	listed := slices.Contains(verbs(k), "list")
	if listed && k.Namespaced {
		everywhere := s.operation("list")
		everywhere.id = "list" + s.group + k.GVK.Kind + "ForAllNamespaces"
		out[s.base+"/"+k.Resource] = &pathItem{params: []parameter{pretty}, operations: []operation{everywhere}}
	}
	if s.watched && k.Custom == nil {
		s.watches(out, scope)
	}
	out[s.base+scope+"/"+k.Resource] = all
	if len(one.operations) > 0 {
		out[s.base+scope+"/"+k.Resource+"/{name}"] = one
	}
	for _, sub := range k.Subresources {
		d.subresource(s, sub, out, s.base+scope+"/"+k.Resource+"/{name}/"+sub.Name)
	}
	return out
}

// watches are the paths by which old clients watch.
func (s *site) watches(out map[string]*pathItem, scope string) {
	list := operation{method: "get", action: "watchlist", id: "watch" + s.group + s.scoped() + s.GVK.Kind + "List",
		about: "watch individual changes to a list of " + s.GVK.Kind + ". deprecated: use the 'watch' parameter with a list operation instead.",
		tag:   s.tag, gvk: s.GVK, answer: watchModel, query: listing, takes: s.input(), gives: s.media(true)}
	one := list
	one.action, one.id = "watch", "watch"+s.group+s.scoped()+s.GVK.Kind
	one.about = "watch changes to an object of kind " + s.GVK.Kind + ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
	out[s.watch+scope+"/"+s.Resource] = &pathItem{params: s.inPath("", pretty), operations: []operation{list}}
	if slices.Contains(verbs(s.Kind), "get") {
		out[s.watch+scope+"/"+s.Resource+"/{name}"] = &pathItem{params: s.inPath(s.GVK.Kind, pretty), operations: []operation{one}}
	}
	if s.Namespaced {
		list.id = "watch" + s.group + s.GVK.Kind + "ListForAllNamespaces"
		out[s.watch+"/"+s.Resource] = &pathItem{params: []parameter{pretty}, operations: []operation{list}}
	}
}

// subresource adds the paths of a subresource.
func (d *definitions) subresource(s *site, sub kinds.Subresource, out map[string]*pathItem, at string) {
	gvk, model := sub.GVK, d.model[sub.GVK]
	if gvk.Empty() {
		gvk, model = s.GVK, s.one
	}
	options := optionsOf(sub)
	if strings.HasSuffix(gvk.Kind, "Options") {
		s.connections(sub, out, at)
		return
	}
	item := &pathItem{params: s.inPath(gvk.Kind, pretty)}
	for _, verb := range sub.Verbs {
		op := s.operation(verb)
		if op.method == "" {
			continue
		}
		op.id = s.verb(verb) + s.group + s.scoped() + s.GVK.Kind + upperFirst(sub.Name)
		op.about, op.gvk = aboutPart(verb, sub.Name, s.GVK.Kind), gvk
		if op.body == s.one {
			op.body = model
		}
		op.answer = model
		if options != nil { // what is read is no object
			op.answer, op.query, op.gives = textModel, options, append([]string{"text/plain"}, op.gives...)
		}
		item.operations = append(item.operations, op)
	}
	out[at] = item
}

// connections are the methods by which a connection begins; what leads on to somewhere
// else has the rest of the path in a second path.
func (s *site) connections(sub kinds.Subresource, out map[string]*pathItem, at string) {
	methods := []string{"get", "post"}
	onward := sub.Name == "proxy"
	if onward {
		methods = []string{"get", "put", "post", "delete", "options", "head", "patch"}
	}
	item := &pathItem{params: append(s.inPath(sub.GVK.Kind), optionsOf(sub)...)}
	on := &pathItem{params: append(slices.Clone(item.params), restOfPath)}
	for _, method := range methods {
		op := operation{method: method, action: "connect", tag: s.tag, gvk: sub.GVK, answer: textModel, gives: []string{"*/*"}, takes: []string{"*/*"},
			id:    "connect" + s.group + upperFirst(method) + s.scoped() + s.GVK.Kind + upperFirst(sub.Name),
			about: "connect " + strings.ToUpper(method) + " requests to " + sub.Name + " of " + s.GVK.Kind}
		item.operations = append(item.operations, op)
		op.id += "WithPath"
		on.operations = append(on.operations, op)
	}
	out[at] = item
	if onward {
		out[at+"/{path}"] = on
	}
}

// models name the schemas of a kind and of its list.
func (d *definitions) models(k *kinds.Kind) (one, list string) {
	listKind := k.GVK
	listKind.Kind += "List"
	if k.ListKind != "" {
		listKind.Kind = k.ListKind
	}
	if k.Custom == nil {
		return d.model[k.GVK], d.model[listKind]
	}
	return customModel(k.GVK), customModel(listKind)
}

// customModel is upstream's name for the schema of a custom kind.
func customModel(gvk schema.GroupVersionKind) string {
	group := strings.Split(gvk.Group, ".")
	slices.Reverse(group)
	return strings.Join(group, ".") + "." + gvk.Version + "." + gvk.Kind
}

func verbs(k *kinds.Kind) []string {
	switch {
	case k.Verbs != nil:
		return k.Verbs
	case k.Storage == "":
		return []string{"create"}
	}
	return []string{"list", "create", "deletecollection", "get", "update", "patch", "delete", "watch"}
}

// models are the schemas that the operations use.
func (p *pathItem) models() (names []string) {
	for _, op := range p.operations {
		names = append(names, op.body, op.answer)
	}
	return names
}
