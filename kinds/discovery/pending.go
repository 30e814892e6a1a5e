package discovery

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validate(_ *discoveryv1.EndpointSlice) field.ErrorList          { return nil }
func validateUpdate(_, _ *discoveryv1.EndpointSlice) field.ErrorList { return nil }
