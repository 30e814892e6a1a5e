package storageversionmigrator

import (
	"context"
	"encoding/json"
	"slices"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// manager is the field manager of what is said about a definition.
const manager = "migration-runner-controller"

// definitions are the kinds that users define.
var definitions = client.Resource[*apiextensionsv1.CustomResourceDefinition]{
	GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), Kind: "CustomResourceDefinition",
}

// of are the migrations of a resource, in no order.
func (c *Controller) of(r metav1.GroupResource) []*migration {
	var found []*migration
	for _, m := range c.migrations.List() {
		if m.Spec.Resource == r {
			found = append(found, m)
		}
	}
	return found
}

// next is the migration of a resource that may begin; nil while one runs, or has yet
// to be cleaned up after.
func (c *Controller) next(r metav1.GroupResource) *migration {
	var first *migration
	for _, m := range c.of(r) {
		if is(m, storagemigrationv1.MigrationRunning) {
			return nil
		}
		if !over(m) && (first == nil || before(m, first)) {
			first = m
		}
	}
	return first
}

func over(m *migration) bool {
	return is(m, storagemigrationv1.MigrationSucceeded) || is(m, storagemigrationv1.MigrationFailed)
}

func before(a, b *migration) bool {
	if i := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); i != 0 {
		return i < 0
	}
	return a.Name < b.Name
}

// promote says that a migration runs: of its definition first.
func (c *Controller) promote(ctx context.Context, m *migration) error {
	def, err := c.definition(ctx, m)
	if err != nil {
		return err
	}
	if def != nil {
		said := storageMigrating(def, apiextensionsv1.ConditionTrue, "MigrationRunning", "Migration "+m.Name+" is running")
		if err := c.apply(ctx, def, said, def.Status.StoredVersions); err != nil {
			return err
		}
	}
	set(m, storagemigrationv1.MigrationRunning, "MigrationRunning", progress{}.sentence())
	return c.write(ctx, m)
}

// finish says that a migration is over. If the definition is as it was when the
// migration began, nothing is stored any more in other versions than today's.
func (c *Controller) finish(ctx context.Context, m *migration) error {
	def, err := c.definition(ctx, m)
	if err != nil {
		return err
	}
	if def != nil {
		said, stored := outcome(def, is(m, storagemigrationv1.MigrationSucceeded))
		if err := c.apply(ctx, def, said, stored); err != nil {
			return err
		}
	}
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: string(storagemigrationv1.MigrationRunning), Status: metav1.ConditionFalse,
		Reason: "MigrationCompleted", Message: "Migration completed", ObservedGeneration: m.Generation})
	return c.write(ctx, m)
}

// outcome is what a definition says after a migration, and in which versions its
// objects are stored. Upstream's runner forgets the old versions after a failure,
// too; here they stay, for objects may still be stored in them.
func outcome(def *apiextensionsv1.CustomResourceDefinition, good bool) (apiextensionsv1.CustomResourceDefinitionCondition, []string) {
	same := false
	for _, c := range def.Status.Conditions {
		same = same || c.Type == apiextensionsv1.StorageMigrating && c.ObservedGeneration == def.Generation
	}
	if !good {
		return storageMigrating(def, apiextensionsv1.ConditionFalse, "MigrationFailed", "The migration has failed"), def.Status.StoredVersions
	}
	const succeeded = "The migration has succeeded "
	if !same {
		return storageMigrating(def, apiextensionsv1.ConditionFalse, "MigrationSucceeded",
			succeeded+"but the stored versions have not been updated due to a generation mismatch"), def.Status.StoredVersions
	}
	stored := slices.DeleteFunc(slices.Clone(def.Spec.Versions), func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return !v.Storage })
	return storageMigrating(def, apiextensionsv1.ConditionFalse, "MigrationSucceeded", succeeded+"and the stored versions have been updated"), []string{stored[0].Name}
}

func storageMigrating(def *apiextensionsv1.CustomResourceDefinition, is apiextensionsv1.ConditionStatus, reason, message string) apiextensionsv1.CustomResourceDefinitionCondition {
	return apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.StorageMigrating, Status: is, Reason: reason, Message: message,
		LastTransitionTime: metav1.Now(), ObservedGeneration: def.Generation}
}

// definition is what defines the resource of a migration; nil for a built-in one.
func (c *Controller) definition(ctx context.Context, m *migration) (*apiextensionsv1.CustomResourceDefinition, error) {
	def, err := definitions.Get(ctx, c.transport, "", m.Spec.Resource.Resource+"."+m.Spec.Resource.Group)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return def, err
}

// apply says it in a definition's status, if that has not changed since; else the
// migration is looked at again. The stored versions are always named: what a manager
// has applied once and names no longer goes away.
func (c *Controller) apply(ctx context.Context, def *apiextensionsv1.CustomResourceDefinition, said apiextensionsv1.CustomResourceDefinitionCondition, stored []string) error {
	body, err := json.Marshal(map[string]any{"apiVersion": definitions.GroupVersion().String(), "kind": definitions.Kind,
		"metadata": map[string]string{"name": def.Name, "resourceVersion": def.ResourceVersion},
		"status":   map[string]any{"conditions": []apiextensionsv1.CustomResourceDefinitionCondition{said}, "storedVersions": stored}})
	if err != nil {
		return err
	}
	force := true
	at := target.Of(definitions.GroupVersionResource, "").Object(def.Name).Sub("status")
	_, err = c.transport.Patch(ctx, at, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: manager, Force: &force})
	return err
}
