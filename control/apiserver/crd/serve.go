package crd

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
	definition "github.com/sampan-dev/sampan/kinds/apiextensions"
)

// serve puts the rows of a definition into the table when they differ from those
// that are there.
func (k *keeper) serve(def *apiextensionsv1.CustomResourceDefinition) error {
	k.noteEnding(def)
	accepted := definition.True(def, apiextensionsv1.NamesAccepted) || definition.True(def, apiextensionsv1.Established)
	have := k.served[def.Name]
	if !accepted || !mayServe(def) {
		k.drop(def.Name)
		return nil
	}
	if have != nil && have.def.UID == def.UID && kinds.Same(have.def.Spec, def.Spec) && kinds.Same(have.def.Status.AcceptedNames, def.Status.AcceptedNames) {
		k.part(have, def)
		return nil
	}
	next, err := newFamily(&k.cfg, def)
	if err != nil {
		k.drop(def.Name)
		return fmt.Errorf("serve: %w", err)
	}
	k.enter(next)
	kept := map[schema.GroupVersionResource]bool{}
	for _, row := range next.rows() {
		if k.builtIn[row.GVR()] {
			k.cfg.Log.Warn("a custom resource definition may not replace a built-in kind", "name", def.Name, "resource", row.GVR())
			continue
		}
		if err := k.table.Add(row); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		kept[row.GVR()] = true
	}
	k.served[def.Name] = next
	k.part(next, def)
	if have != nil {
		k.leave(have, kept)
	}
	return nil
}

// drop serves a definition no more.
func (k *keeper) drop(name string) {
	have := k.served[name]
	if have == nil {
		return
	}
	delete(k.served, name)
	k.leave(have, nil)
	k.mu.Lock()
	delete(k.ending, groupResource(have.def))
	k.mu.Unlock()
}

// enter makes a family known to those who ask by kind or row.
func (k *keeper) enter(f *family) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range f.versions {
		k.byRow[v.row] = v
		if v.spec.Served || v.spec.Storage {
			k.versions[v.gvk] = v
		}
	}
}

// leave takes a family out again, and its rows that nobody has replaced.
func (k *keeper) leave(f *family, kept map[schema.GroupVersionResource]bool) {
	for _, row := range f.rows() {
		if !kept[row.GVR()] && !k.builtIn[row.GVR()] {
			k.table.Remove(row.GVR())
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range f.versions {
		delete(k.byRow, v.row)
		delete(k.parting, v.row)
		if k.versions[v.gvk] == v {
			delete(k.versions, v.gvk)
		}
	}
}

// part notes how a family is shown while its objects are being deleted.
func (k *keeper) part(f *family, def *apiextensionsv1.CustomResourceDefinition) {
	if !definition.True(def, apiextensionsv1.Terminating) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, row := range f.rows() {
		if k.parting[row] == nil {
			shown := *row
			shown.Verbs = []string{"delete", "deletecollection", "get", "list", "watch"}
			k.parting[row] = &shown
		}
	}
}

func (k *keeper) noteEnding(def *apiextensionsv1.CustomResourceDefinition) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if def.DeletionTimestamp != nil {
		k.ending[groupResource(def)] = true
		return
	}
	delete(k.ending, groupResource(def))
}

func groupResource(def *apiextensionsv1.CustomResourceDefinition) schema.GroupResource {
	return schema.GroupResource{Group: def.Spec.Group, Resource: def.Spec.Names.Plural}
}

// hubOf is the row by which a definition's objects can be reached in the version
// that is stored; nil when it is not served.
func (k *keeper) hubOf(name string) *kinds.Kind {
	f := k.served[name]
	if f == nil || k.builtIn[f.hub.row.GVR()] {
		return nil
	}
	return f.hub.row
}
