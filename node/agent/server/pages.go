package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/internal/zpages"
)

// Pages are those about the node's part itself, as upstream's gates switch them.
type Pages struct {
	// Of is what they tell of, but for its paths.
	Of zpages.Component
	// Status and Flags serve /statusz and /flagz.
	Status, Flags bool
}

// upkeep are the roots that /statusz lists where they are served: upstream's kubelet
// leaves out what is about pods.
var upkeep = []string{"configz", "debug", "flagz", "healthz", "metrics"}

// pages serves the pages; patterns are all else that is served. Upstream has /flagz
// seen by who may see /configz, and neither page by who has the node's proxy alone.
func (s *Server) pages(patterns []string, get func(pattern string, h http.HandlerFunc, subresources ...string)) {
	p := s.cfg.Pages
	if p.Flags {
		patterns = append(patterns, "/flagz")
		get("/flagz", p.Of.Flagz().ServeHTTP, "configz")
	}
	if p.Status {
		p.Of.Paths = roots(patterns)
		get("/statusz", p.Of.Statusz().ServeHTTP, "statusz")
	}
}

// roots are the first parts of the patterns that /statusz lists.
func roots(patterns []string) []string {
	found := []string{}
	for _, pattern := range patterns {
		root, _, _ := strings.Cut(strings.TrimPrefix(pattern, "/"), "/")
		if slices.Contains(upkeep, root) {
			found = append(found, "/"+root)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
