package controller

import (
	"slices"

	"github.com/sampan-dev/sampan/kinds"
)

// Stored are the kinds of a table that the collector and the end of namespaces
// look after: each kind that is stored, lists, watches and deletes, in one of its
// versions.
func Stored(table []*kinds.Kind) []Kind {
	var all []Kind
	seen := map[string]bool{}
	for _, k := range table {
		if k.Storage == "" || seen[k.Storage] || !serves(k, "list", "watch", "delete") {
			continue
		}
		seen[k.Storage] = true
		all = append(all, Kind{GroupVersionResource: k.GVR(), Kind: k.GVK.Kind, Namespaced: k.Namespaced})
	}
	return all
}

func serves(k *kinds.Kind, verbs ...string) bool {
	if k.Verbs == nil {
		return true
	}
	for _, v := range verbs {
		if !slices.Contains(k.Verbs, v) {
			return false
		}
	}
	return true
}
