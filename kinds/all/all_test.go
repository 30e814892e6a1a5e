package all

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Discovery and storage break silently when two rows claim the same place.
func TestRowsAreDistinctAndComplete(t *testing.T) {
	seen := map[schema.GroupVersionResource]bool{}
	for _, kind := range Kinds() {
		t.Run(kind.GVK.String(), func(t *testing.T) {
			if seen[kind.GVR()] {
				t.Errorf("resource %v is listed twice", kind.GVR())
			}
			seen[kind.GVR()] = true
			if kind.Singular == "" || kind.New == nil || kind.NewList == nil {
				t.Error("a name or a constructor is missing")
			}
			answered, computed := slices.Equal(kind.Verbs, []string{"create"}), slices.Equal(kind.Verbs, []string{"get", "list"})
			if kind.Storage == "" && !answered && !computed {
				t.Errorf("kind is not stored, but serves %v", kind.Verbs)
			}
			if kind.View != nil && (kind.View.ToStored == nil || kind.View.FromStored == nil || kind.View.Stored.Empty()) {
				t.Error("view is incomplete")
			}
			for _, sub := range kind.Subresources {
				if len(sub.Verbs) == 0 {
					t.Errorf("subresource %q has no verbs", sub.Name)
				}
			}
		})
	}
}
