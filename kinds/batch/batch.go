// Package batch says what the kinds of the batch group are: work that ends.
package batch

import (
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{CronJob(), Job()} }

func gvk(kind string) schema.GroupVersionKind { return batchv1.SchemeGroupVersion.WithKind(kind) }

func orDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}
