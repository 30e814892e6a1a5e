package node

import (
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validate(_ *nodev1.RuntimeClass) field.ErrorList          { return nil }
func validateUpdate(_, _ *nodev1.RuntimeClass) field.ErrorList { return nil }
