package sim_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

var boats = schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "boats"}

// boatKind defines boats and waits until they are served.
func (p *plane) boatKind() {
	p.Helper()
	open := true
	def := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "boats.sea.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: boats.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "boats", Singular: "boat", Kind: "Boat", ListKind: "BoatList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &open}}}}},
	}
	at := target.Of(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), "")
	if _, err := p.admin.Create(p.Context(), at, def, metav1.CreateOptions{}); err != nil {
		p.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	p.settle()
}

func (p *plane) boat(namespace, name string) error {
	obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "sea.example.com/v1", "kind": "Boat",
		"metadata": map[string]any{"name": name, "namespace": namespace}}}
	_, err := p.admin.Create(p.Context(), target.Of(boats, namespace), obj, metav1.CreateOptions{})
	return err
}

// Custom resources are counted by quotas, and go with their namespace.
func TestCustomKindsAreLookedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.boatKind()
		p.quota("harbour", "count/boats.sea.example.com", "2")
		p.expectUsed("harbour", "count/boats.sea.example.com=0")
		for _, name := range []string{"a", "b"} {
			if err := p.boat("default", name); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.boat("default", "c"); err == nil || !strings.Contains(err.Error(), "exceeded quota: harbour, requested: count/boats.sea.example.com=1, used: count/boats.sea.example.com=2") {
			t.Errorf("a third boat: %v", err)
		}
		if err := p.admin.Delete(t.Context(), target.Of(boats, "default").Object("a"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectUsed("harbour", "count/boats.sea.example.com=1")

		if _, err := client.Namespaces.Create(t.Context(), p.admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sunk"}}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if err := p.boat("sunk", "d"); err != nil {
			t.Fatal(err)
		}
		if err := client.Namespaces.Delete(t.Context(), p.admin, "", "sunk", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := client.Namespaces.Get(t.Context(), p.admin, "", "sunk"); !apierrors.IsNotFound(err) {
			t.Errorf("the namespace: %v", err)
		}
		if _, err := p.admin.Get(t.Context(), target.Of(boats, "sunk").Object("d"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a boat of a namespace that is gone: %v", err)
		}
	})
}

// A migration of custom resources is told of their definition, one at a time; what
// no object is stored in any more is forgotten, unless the definition has changed.
func TestCustomKindsAreMigrated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.boatKind()
		if err := p.boat("default", "a"); err != nil {
			t.Fatal(err)
		}
		crd := target.Of(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), "").Object("boats.sea.example.com")
		definition := func() *apiextensionsv1.CustomResourceDefinition {
			got, err := p.admin.Get(t.Context(), crd, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return got.(*apiextensionsv1.CustomResourceDefinition).DeepCopy()
		}
		next := definition()
		v2 := *next.Spec.Versions[0].DeepCopy()
		v2.Name = "v2"
		next.Spec.Versions[0].Storage = false
		next.Spec.Versions = append(next.Spec.Versions, v2)
		if _, err := p.admin.Update(t.Context(), crd, next, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := definition().Status.StoredVersions; !slices.Equal(got, []string{"v1", "v2"}) {
			t.Fatalf("stored versions before: %v", got)
		}
		migrate := func(name string) {
			m := &storagemigrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: name}}
			m.Spec.Resource = metav1.GroupResource{Group: boats.Group, Resource: boats.Resource}
			if _, err := client.StorageVersionMigrations.Create(t.Context(), p.admin, m); err != nil {
				t.Fatal(err)
			}
		}
		migrate("first")
		migrate("second")
		time.Sleep(time.Minute)
		p.settle()
		for _, name := range []string{"first", "second"} {
			m, err := client.StorageVersionMigrations.Get(t.Context(), p.admin, "", name)
			if err != nil {
				t.Fatal(err)
			}
			ran := meta.FindStatusCondition(m.Status.Conditions, string(storagemigrationv1.MigrationRunning))
			if !meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationSucceeded)) || ran == nil || ran.Status != metav1.ConditionFalse || ran.Reason != "MigrationCompleted" {
				t.Errorf("%s: %+v", name, m.Status)
			}
		}
		done := definition()
		told := slices.IndexFunc(done.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.StorageMigrating
		})
		if told < 0 || done.Status.Conditions[told].Status != apiextensionsv1.ConditionFalse || done.Status.Conditions[told].ObservedGeneration != done.Generation ||
			done.Status.Conditions[told].Message != "The migration has succeeded and the stored versions have been updated" {
			t.Errorf("conditions: %+v", done.Status.Conditions)
		}
		if got := done.Status.StoredVersions; !slices.Equal(got, []string{"v2"}) {
			t.Errorf("stored versions after: %v", got)
		}
		if !definitionServes(done) {
			t.Errorf("no longer established: %+v", done.Status.Conditions)
		}
	})
}

func definitionServes(def *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(def.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}
