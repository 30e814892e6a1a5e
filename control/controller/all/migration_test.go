package all_test

import (
	"testing"
	"testing/synctest"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// A migration ends with success, and one of a resource that nobody serves with a
// failure, a minute after it was made.
func TestMigration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, config("a", "one"), config("a", "two"))
		for name, resource := range map[string]string{"good": "configmaps", "bad": "unheard"} {
			m := &storagemigrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Now()}}
			m.Spec.Resource.Resource = resource
			if _, err := client.StorageVersionMigrations.Create(t.Context(), b.server, m); err != nil {
				t.Fatal(err)
			}
		}
		b.settle()
		check := func(name string, condition storagemigrationv1.MigrationConditionType, message string) {
			t.Helper()
			m, err := client.StorageVersionMigrations.Get(t.Context(), b.server, "", name)
			if err != nil {
				t.Fatal(err)
			}
			c := meta.FindStatusCondition(m.Status.Conditions, string(condition))
			if c == nil || c.Status != metav1.ConditionTrue || c.Message != message {
				t.Errorf("%s: %+v", name, m.Status)
			}
		}
		check("good", storagemigrationv1.MigrationSucceeded, "Migration completed")
		time.Sleep(2 * time.Minute)
		check("bad", storagemigrationv1.MigrationFailed, "resource does not exist in discovery")
	})
}
