// Package networking says what the kinds of the networking.k8s.io group are.
package networking

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{Ingress(), IngressClass(), NetworkPolicy(), IPAddress(), ServiceCIDR()}
}

func gvk(kind string) schema.GroupVersionKind { return networkingv1.SchemeGroupVersion.WithKind(kind) }
