package openapi

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// operation is what a verb does to the kind itself; one without a method for a verb
// that has no path of its own.
func (s *site) operation(verb string) operation {
	op := operation{gvk: s.GVK, tag: s.tag, answer: s.one, takes: s.input(), gives: s.media(false),
		id: s.verb(verb) + s.group + s.scoped() + s.GVK.Kind, about: s.about(verb)}
	switch verb {
	case "list":
		op.method, op.action, op.answer, op.query, op.gives = "get", "list", s.list, listing, s.media(s.Custom == nil && s.watched)
	case "create":
		op.method, op.action, op.body, op.query, op.codes = "post", "post", s.one, creating, []string{"201", "202"}
	case "deletecollection":
		op.method, op.action, op.body, op.answer = "delete", "deletecollection", optionsModel, statusModel
		op.id = "delete" + s.group + "Collection" + s.scoped() + s.GVK.Kind
		op.query = deletingAll
	case "get":
		op.method, op.action = "get", "get"
		if s.Custom != nil {
			op.query = reading
		}
	case "update":
		op.method, op.action, op.body, op.query, op.codes = "put", "put", s.one, updating, []string{"201"}
	case "patch":
		op.method, op.action, op.body, op.query, op.takes = "patch", "patch", patchModel, patching, patchMedia
		if op.codes = []string{"201"}; s.Custom != nil {
			op.codes, op.takes = nil, []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"}
		}
	case "delete":
		op.method, op.action, op.body, op.query, op.codes = "delete", "delete", optionsModel, deleting, []string{"202"}
		if !s.Strategy.ReturnsDeleted {
			op.answer = statusModel
		}
	}
	return op
}

// about says in upstream's words what a verb does.
func (s *site) about(verb string) string {
	kind := s.GVK.Kind
	switch verb {
	case "list":
		if s.watched && s.Custom == nil {
			return "list or watch objects of kind " + kind
		}
		return "list objects of kind " + kind
	case "create":
		return "create" + article(kind) + kind
	case "deletecollection":
		return "delete collection of " + kind
	case "get":
		return "read the specified " + kind
	case "update":
		return "replace the specified " + kind
	case "patch":
		return "partially update the specified " + kind
	}
	return "delete" + article(kind) + kind
}

// aboutPart is the same for a subresource.
func aboutPart(verb, part, kind string) string {
	switch verb {
	case "create":
		return "create " + part + " of" + article(kind) + kind
	case "get":
		return "read " + part + " of the specified " + kind
	case "update":
		return "replace " + part + " of the specified " + kind
	}
	return "partially update " + part + " of the specified " + kind
}

// verb is a verb as names of operations begin.
func (s *site) verb(verb string) string {
	switch verb {
	case "get":
		return "read"
	case "update":
		return "replace"
	}
	return verb
}

func (s *site) scoped() string {
	if s.Namespaced {
		return "Namespaced"
	}
	return ""
}

// inPath are a path's own parameters, and more; named is the kind whose name is in it.
func (s *site) inPath(named string, more ...parameter) (params []parameter) {
	if named != "" {
		params = append(params, parameter{name: "name", in: "path", kind: "string", about: "name of the " + named})
	}
	if s.Namespaced {
		params = append(params, parameter{name: "namespace", in: "path", kind: "string", about: "object name and auth scope, such as for teams and projects"})
	}
	return append(params, more...)
}

// media are the formats of answers, also those of a watch. Of custom kinds upstream
// names two, though it serves CBOR for them too.
func (s *site) media(watch bool) []string {
	if s.Custom != nil {
		return []string{"application/json", "application/yaml"}
	}
	media := []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}
	if watch {
		media = append(media, "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq")
	}
	return media
}

// input are the formats of what is sent; which objects may be in is left open, as
// upstream does.
func (s *site) input() []string {
	if s.Custom != nil {
		return []string{"application/json", "application/yaml"}
	}
	return []string{"*/*"}
}

// groupName is a group in names of operations: "RbacAuthorization".
func groupName(group string) string {
	if group == "" {
		return "Core"
	}
	name := ""
	for part := range strings.SplitSeq(strings.TrimSuffix(group, ".k8s.io"), ".") {
		name += upperFirst(part)
	}
	return name
}

// tagOf is by which generated clients sort operations: "rbacAuthorization_v1".
func tagOf(gv schema.GroupVersion) string { return lowerFirst(groupName(gv.Group)) + "_" + gv.Version }

// article is upstream's, between spaces: none before what looks like a plural.
func article(noun string) string {
	switch {
	case strings.HasSuffix(noun, "s") && !strings.HasSuffix(noun, "ss"):
		return " "
	case strings.ContainsAny(noun[:1], "AEIOU"):
		return " an "
	}
	return " a "
}

func upperFirst(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
