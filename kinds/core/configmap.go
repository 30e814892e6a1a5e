package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// ConfigMap is the kind for configuration that is no secret.
func ConfigMap() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("ConfigMap"),
		Resource:   "configmaps",
		Singular:   "configmap",
		Short:      []string{"cm"},
		Namespaced: true,
		Storage:    "configmaps",
		New:        func() kinds.Object { return &corev1.ConfigMap{} },
		NewList:    func() runtime.Object { return &corev1.ConfigMapList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Validate:       kinds.Check(validateConfigMap),
			ValidateUpdate: kinds.CheckUpdate(validateConfigMapUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(configMapTexts(), "Name", "Data", "Age"),
			Row: kinds.Row(func(m *corev1.ConfigMap, now time.Time) []any {
				return []any{m.Name, int64(len(m.Data) + len(m.BinaryData)), kinds.Created(m, now)}
			}),
		},
	}
}
