package gc

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// refsOf makes owner references, of owners that block for capitals.
func refsOf(names string) []metav1.OwnerReference {
	var all []metav1.OwnerReference
	for _, name := range names {
		blocks := name >= 'A' && name <= 'Z'
		all = append(all, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: string(name), UID: types.UID(name), BlockOwnerDeletion: &blocks})
	}
	return all
}

func namesOf(refs []metav1.OwnerReference) string {
	names := ""
	for _, ref := range refs {
		if name := ref.Name; *ref.BlockOwnerDeletion {
			names += name + "!"
		} else {
			names += name
		}
	}
	return names
}

// What becomes of an object whose owners exist, wait for it, or are gone: upstream's
// attemptToDeleteItem.
func TestDecide(t *testing.T) {
	leaf, root := []*node(nil), []*node{{deleting: true}, {}}
	circle := []*node{{}, {deleting: true, foreground: true}}
	for _, c := range []struct {
		name                     string
		solid, waiting, dangling string
		finalizers               []string
		dependents               []*node
		remove                   metav1.DeletionPropagation
		keep                     string // "-": the references stay as they are
	}{
		{"no owner", "", "", "", nil, leaf, "", "-"},
		{"an owner", "a", "", "", nil, leaf, "", "-"},
		{"an owner, and one that is gone", "a", "", "b", nil, leaf, "", "a"},
		{"an owner, and one that waits", "A", "b", "", nil, root, "", "A!"},
		{"an owner, one that waits and one that is gone", "aB", "c", "d", nil, leaf, "", "aB!"},
		{"gone", "", "", "a", nil, leaf, metav1.DeletePropagationBackground, "-"},
		{"gone, and it has dependents", "", "", "a", nil, root, metav1.DeletePropagationBackground, "-"},
		{"gone, and its dependents are to stay", "", "", "a", []string{"x", metav1.FinalizerOrphanDependents}, root, metav1.DeletePropagationOrphan, "-"},
		{"gone, and it waits for its dependents", "", "", "a", []string{metav1.FinalizerDeleteDependents}, root, metav1.DeletePropagationForeground, "-"},
		{"gone, and both finalizers", "", "", "a", []string{metav1.FinalizerDeleteDependents, metav1.FinalizerOrphanDependents}, leaf, metav1.DeletePropagationOrphan, "-"},
		{"waited for", "", "a", "", nil, leaf, metav1.DeletePropagationBackground, "-"},
		{"waited for, and another is gone", "", "a", "b", nil, leaf, metav1.DeletePropagationBackground, "-"},
		{"waited for, and it has dependents", "", "a", "", nil, root, metav1.DeletePropagationForeground, "-"},
		{"waited for, and it has dependents that should stay", "", "a", "", []string{metav1.FinalizerOrphanDependents}, root, metav1.DeletePropagationForeground, "-"},
		{"waited for, in a circle", "", "A", "B", nil, circle, metav1.DeletePropagationForeground, "BA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := owners{solid: refsOf(c.solid), waiting: refsOf(c.waiting), dangling: refsOf(c.dangling)}
			live := &metav1.ObjectMeta{Finalizers: c.finalizers, OwnerReferences: refsOf(c.solid + c.dangling + c.waiting)}
			before := namesOf(live.OwnerReferences)
			a := decide(o, live, c.dependents)
			keep := "-"
			if a.patch {
				keep = namesOf(a.keep)
			}
			if a.remove != c.remove || keep != c.keep || a.reason == "" {
				t.Errorf("removes %q, keeps %q (%s); want %q, %q", a.remove, keep, a.reason, c.remove, c.keep)
			}
			if got := namesOf(live.OwnerReferences); got != before {
				t.Errorf("what was read is changed: %s, was %s", got, before)
			}
		})
	}
}
