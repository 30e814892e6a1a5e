package resource

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/target"
)

// route is what a URL's path names.
type route struct {
	target target.Target
	// watch is set by the old form ".../watch/...".
	watch bool
	// rest is what follows the subresource, with its leading slash.
	rest string
}

// namespaceParts are subresources of a namespace, not resources in one.
var namespaceParts = []string{"status", "finalize"}

// parsePath reads /api/v1/… and /apis/<group>/<version>/…. ok is false for paths
// that name no resource.
func parsePath(path string) (r route, ok bool) {
	var room [8]string // a longer path, but for a proxy's, names nothing
	parts := room[:0]
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		parts = append(parts, part)
	}
	var gv schema.GroupVersion
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		gv.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		gv.Group, gv.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return route{}, false
	}
	if parts[0] == "watch" && len(parts) > 1 {
		r.watch, parts = true, parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 && !slices.Contains(namespaceParts, parts[2]) {
		r.target.Namespace, parts = parts[1], parts[2:]
	}
	r.target.Resource = gv.WithResource(parts[0])
	if len(parts) > 1 {
		r.target.Name = parts[1]
	}
	if len(parts) > 2 {
		r.target.Subresource = parts[2]
	}
	if len(parts) > 3 {
		r.rest = "/" + strings.Join(parts[3:], "/")
	}
	if r.rest != "" && strings.HasSuffix(path, "/") {
		r.rest += "/"
	}
	return r, true
}

// verb says what a method on the route asks for; "" when it asks for nothing.
func (r route) verb(method string, watch bool) string {
	one := r.target.Name != ""
	switch method {
	case http.MethodGet:
		switch {
		case r.watch || watch && !one: // of one object only the old form is a watch
			return verbWatch
		case one:
			return verbGet
		}
		return verbList
	case http.MethodPost:
		if !one || r.target.Subresource != "" {
			return verbCreate
		}
	case http.MethodPut:
		if one {
			return verbUpdate
		}
	case http.MethodPatch:
		if one {
			return verbPatch
		}
	case http.MethodDelete:
		if one {
			return verbDelete
		}
		return verbDeleteCollection
	}
	return ""
}

// upgrades are the connections that run or reach something in a pod. They are
// authorised as create whatever the HTTP method: a WebSocket begins with GET,
// and reading is not what it does.
var upgrades = []string{"pods/exec", "pods/attach", "pods/portforward"}
