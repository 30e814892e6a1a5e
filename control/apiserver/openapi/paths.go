package openapi

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Schemas that many operations use.
const (
	statusModel     = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
	objectMetaModel = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	optionsModel    = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
	patchModel      = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
)

// patchMedia are the formats of a patch.
var patchMedia = []string{"application/json-patch+json", "application/merge-patch+json",
	"application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor"}

// pathItem is what may be done at one path.
type pathItem struct {
	namespaced, named bool
	custom            bool // there is no Go type: no protobuf, no strategic merge
	operations        []operation
}

// operation is one method at a path.
type operation struct {
	method, action string
	gvk            schema.GroupVersionKind
	id             string
	body           string // the model of what is sent; "" for none
	answer         string // the model of what comes back
	query          []parameter
}

// parameter is one query parameter.
type parameter struct{ name, kind, about string }

var (
	pretty  = parameter{"pretty", "string", "If 'true', then the output is pretty printed."}
	dryRun  = parameter{"dryRun", "string", "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed"}
	manager = parameter{"fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes."}
	strict  = parameter{"fieldValidation", "string", "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict."}
	force   = parameter{"force", "boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people."}
	listing = []parameter{
		{"allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."},
		{"continue", "string", "The continue option should be set when retrieving more results from the server."},
		{"fieldSelector", "string", "A selector to restrict the list of returned objects by their fields."},
		{"labelSelector", "string", "A selector to restrict the list of returned objects by their labels."},
		{"limit", "integer", "limit is a maximum number of responses to return for a list call."},
		{"resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."},
		{"resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."},
		{"sendInitialEvents", "boolean", "sendInitialEvents may be set together with watch."},
		{"timeoutSeconds", "integer", "Timeout for the list/watch call."},
		{"watch", "boolean", "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications."},
	}
	deleting = []parameter{dryRun,
		{"gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."},
		{"orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."},
		{"propagationPolicy", "string", "Whether and how garbage collection will be performed."},
	}
)

// paths are all paths of a kind.
func (d *definitions) paths(k *kinds.Kind) map[string]*pathItem {
	base := "/" + groupPath(k)
	if k.Namespaced {
		base += "/namespaces/{namespace}"
	}
	base += "/" + k.Resource
	model, listModel := d.models(k)
	out := map[string]*pathItem{}
	all := &pathItem{namespaced: k.Namespaced, custom: k.Custom != nil}
	one := &pathItem{namespaced: k.Namespaced, named: true, custom: k.Custom != nil}
	for _, verb := range verbs(k) {
		op := operation{gvk: k.GVK, answer: model, id: k.GVK.Kind}
		into := one
		switch verb {
		case "list":
			op.method, op.action, op.answer, op.query, into = "get", "list", listModel, listing, all
		case "create":
			op.method, op.action, op.body, op.query, into = "post", "post", model, []parameter{dryRun, manager, strict}, all
		case "deletecollection":
			op.method, op.action, op.body, op.answer, into = "delete", "deletecollection", optionsModel, statusModel, all
			op.query = slices.Concat(deleting, listing)
		case "get":
			op.method, op.action = "get", "get"
		case "update":
			op.method, op.action, op.body, op.query = "put", "put", model, []parameter{dryRun, manager, strict}
		case "patch":
			op.method, op.action, op.body, op.query = "patch", "patch", patchModel, []parameter{dryRun, manager, strict, force}
		case "delete":
			op.method, op.action, op.body, op.answer, op.query = "delete", "delete", optionsModel, statusModel, deleting
		default:
			continue
		}
		into.operations = append(into.operations, op)
	}
	out[base] = all
	if len(one.operations) > 0 {
		out[base+"/{name}"] = one
	}
	for _, s := range k.Subresources {
		out[base+"/{name}/"+s.Name] = d.subresource(k, s)
	}
	return out
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
	return []string{"list", "create", "deletecollection", "get", "update", "patch", "delete"}
}

func (d *definitions) subresource(k *kinds.Kind, s kinds.Subresource) *pathItem {
	gvk := s.GVK
	model := d.model[gvk]
	if gvk.Empty() {
		gvk = k.GVK
		model, _ = d.models(k)
	}
	item := &pathItem{namespaced: k.Namespaced, named: true, custom: k.Custom != nil}
	for _, verb := range s.Verbs {
		op := operation{gvk: gvk, answer: model, id: k.GVK.Kind + strings.ToUpper(s.Name[:1]) + s.Name[1:]}
		switch verb {
		case "get":
			op.method, op.action = "get", "get"
		case "create":
			op.method, op.action, op.body, op.query = "post", "post", model, []parameter{dryRun, manager, strict}
		case "update":
			op.method, op.action, op.body, op.query = "put", "put", model, []parameter{dryRun, manager, strict}
		case "patch":
			op.method, op.action, op.body, op.query = "patch", "patch", patchModel, []parameter{dryRun, manager, strict, force}
		default:
			continue
		}
		item.operations = append(item.operations, op)
	}
	return item
}

// models are the schemas that the operations use.
func (p *pathItem) models() (names []string) {
	for _, op := range p.operations {
		names = append(names, op.body, op.answer)
	}
	return names
}

func (op *operation) common() map[string]any {
	return map[string]any{
		"operationId":         op.action + op.gvk.Group + op.gvk.Version + op.id,
		"x-kubernetes-action": op.action,
		gvkExtension:          map[string]string{"group": op.gvk.Group, "version": op.gvk.Version, "kind": op.gvk.Kind},
	}
}

// inPath are the path's own parameters.
func (p *pathItem) inPath() (params []parameter) {
	if p.named {
		params = append(params, parameter{"name", "string", "name of the object"})
	}
	if p.namespaced {
		params = append(params, parameter{"namespace", "string", "object name and auth scope, such as for teams and projects"})
	}
	return params
}

func (p *pathItem) v2() map[string]any {
	out := map[string]any{}
	var params []any
	for _, q := range p.inPath() {
		params = append(params, map[string]any{"name": q.name, "in": "path", "required": true, "type": q.kind, "description": q.about, "uniqueItems": true})
	}
	params = append(params, map[string]any{"name": pretty.name, "in": "query", "type": pretty.kind, "description": pretty.about, "uniqueItems": true})
	out["parameters"] = params
	for i := range p.operations {
		op := &p.operations[i]
		o := op.common()
		var params []any
		if op.body != "" {
			params = append(params, map[string]any{"name": "body", "in": "body", "required": op.action != "delete" && op.action != "deletecollection",
				"schema": map[string]any{refKey: refV2 + op.body}})
		}
		for _, q := range op.query {
			params = append(params, map[string]any{"name": q.name, "in": "query", "type": q.kind, "description": q.about, "uniqueItems": true})
		}
		if params != nil {
			o["parameters"] = params
		}
		o["consumes"] = p.takes(op)
		o["produces"] = p.gives(op)
		ok := map[string]any{"description": "OK"}
		if op.answer != "" {
			ok["schema"] = map[string]any{refKey: refV2 + op.answer}
		}
		o["responses"] = map[string]any{"200": ok, "401": map[string]any{"description": "Unauthorized"}}
		out[op.method] = o
	}
	return out
}

func (p *pathItem) v3() map[string]any {
	out := map[string]any{}
	param := func(q parameter, in string) map[string]any {
		m := map[string]any{"name": q.name, "in": in, "description": q.about, "schema": map[string]any{"type": q.kind, "uniqueItems": true}}
		if in == "path" {
			m["required"] = true
		}
		return m
	}
	var params []any
	for _, q := range p.inPath() {
		params = append(params, param(q, "path"))
	}
	out["parameters"] = append(params, param(pretty, "query"))
	for i := range p.operations {
		op := &p.operations[i]
		o := op.common()
		var params []any
		for _, q := range op.query {
			params = append(params, param(q, "query"))
		}
		if params != nil {
			o["parameters"] = params
		}
		if op.body != "" {
			o["requestBody"] = map[string]any{"content": content(op.body, p.takes(op))}
		}
		ok := map[string]any{"description": "OK"}
		if op.answer != "" {
			ok["content"] = content(op.answer, p.gives(op))
		}
		o["responses"] = map[string]any{"200": ok, "401": map[string]any{"description": "Unauthorized"}}
		out[op.method] = o
	}
	return out
}

// gives are the formats of an operation's answers: of a list also those of a watch.
// Of custom kinds upstream names two, though it serves CBOR for them too.
func (p *pathItem) gives(op *operation) []string {
	if p.custom {
		return []string{"application/json", "application/yaml"}
	}
	media := []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}
	if op.action == "list" {
		media = append(media, "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq")
	}
	return media
}

// takes are the formats of what is sent; which objects may be in is left open, as
// upstream does.
func (p *pathItem) takes(op *operation) []string {
	switch {
	case op.method == "patch" && p.custom:
		return []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"}
	case op.method == "patch":
		return patchMedia
	case p.custom:
		return []string{"application/json", "application/yaml"}
	}
	return []string{"*/*"}
}

func content(model string, media []string) map[string]any {
	out := map[string]any{}
	for _, m := range media {
		out[m] = map[string]any{"schema": map[string]any{refKey: refV3 + model}}
	}
	return out
}
