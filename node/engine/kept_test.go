package engine

import (
	"maps"
	"slices"
	"testing"
)

// What is kept is found by its ID and in each of its groups, until it is dropped or
// another has its ID; a group that nobody is in is not remembered.
func TestKept(t *testing.T) {
	type thing struct{ groups []string }
	k := newKept(func(v *thing) []string { return v.groups })
	step := func(what string, want map[string][]string) {
		t.Helper()
		for group, ids := range want {
			if got := slices.Sorted(maps.Keys(k.in(group))); !slices.Equal(got, ids) {
				t.Errorf("%s: in %q are %q, want %q", what, group, got, ids)
			}
		}
		if len(k.groups) != len(want)-1 {
			t.Errorf("%s: %d groups are remembered, want %d", what, len(k.groups), len(want)-1)
		}
	}
	k.put("a", &thing{[]string{"pod 1", "sandbox x"}})
	k.put("b", &thing{[]string{"pod 1", "sandbox y"}})
	k.put("c", &thing{[]string{"", "sandbox y"}})
	step("three things", map[string][]string{"": {"a", "b", "c"}, "pod 1": {"a", "b"}, "sandbox x": {"a"}, "sandbox y": {"b", "c"}})
	k.put("b", &thing{[]string{"pod 2", "sandbox y"}})
	step("one in another pod", map[string][]string{"": {"a", "b", "c"}, "pod 1": {"a"}, "pod 2": {"b"}, "sandbox x": {"a"}, "sandbox y": {"b", "c"}})
	k.drop("a")
	k.drop("a")
	step("one less", map[string][]string{"": {"b", "c"}, "pod 2": {"b"}, "sandbox y": {"b", "c"}})
	if podOf(map[string]string{"app": "web"}) != "" || podOf(nil) != "" {
		t.Error("what names no pod is in a pod's group")
	}
}
