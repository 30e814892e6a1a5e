package apps

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// ControllerRevision is the kind in which stateful and daemon sets keep their
// former templates.
func ControllerRevision() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("ControllerRevision"),
		Resource:   "controllerrevisions",
		Singular:   "controllerrevision",
		Namespaced: true,
		Storage:    "controllerrevisions",
		New:        func() kinds.Object { return &appsv1.ControllerRevision{} },
		NewList:    func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Validate:       kinds.Check(validateControllerRevision),
			ValidateUpdate: kinds.CheckUpdate(validateControllerRevisionUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(controllerRevisionTexts(), "Name", "Controller", "Revision", "Age"),
			Row: kinds.Row(func(r *appsv1.ControllerRevision, now time.Time) []any {
				return []any{r.Name, owner(r), r.Revision, kinds.Created(r, now)}
			}),
		},
	}
}

// owner is the controller in kubectl's way: "statefulset.apps/web".
func owner(obj metav1.Object) string {
	ref := metav1.GetControllerOf(obj)
	if ref == nil {
		return kinds.None
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return ref.Name
	}
	return strings.ToLower(gv.WithKind(ref.Kind).GroupKind().String()) + "/" + ref.Name
}
