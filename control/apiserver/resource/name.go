package resource

import (
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// metadata checks an object's metadata, by a rule for its name. A namespace whose name is
// good is not looked at by upstream's expression.
func (c *call) metadata(obj metav1.Object, rule validation.ValidateNameFunc) field.ErrorList {
	if c.kind.Namespaced && len(kinds.DNSLabel(obj.GetNamespace())) == 0 {
		return validation.ValidateObjectMetaAccessor(homed{obj}, false, rule, atMetadata)
	}
	return validation.ValidateObjectMetaAccessor(obj, c.kind.Namespaced, rule, atMetadata)
}

// homed is an object whose namespace need not be looked at any more.
type homed struct{ metav1.Object }

// GetNamespace says that there is nothing to look at.
func (homed) GetNamespace() string { return "" }

// subdomain is the rule for names of most kinds.
func subdomain(name string, prefix bool) []string {
	if prefix {
		return validation.NameIsDNSSubdomain(name, prefix)
	}
	return kinds.DNSSubdomain(name)
}
