package core

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// checkNodeConfig looks at where a node once had its configuration from. Nobody serves
// it, and new nodes lose it; a store of old may still have some.
func checkNodeConfig(f *kinds.Faults, n *corev1.Node) {
	if source := n.Spec.ConfigSource; source != nil { //nolint:staticcheck // it is what is looked at
		checkConfigSource(f, source, kinds.NewPath("spec").Child("configSource"), func(m *corev1.ConfigMapNodeConfigSource, at *kinds.Path) {
			if m.UID != "" {
				f.Forbidden(at.Child("uid"), "uid must not be set in spec")
			}
			if m.ResourceVersion != "" {
				f.Forbidden(at.Child("resourceVersion"), "resourceVersion must not be set in spec")
			}
		})
	}
	if n.Status.Config == nil {
		return
	}
	at := kinds.NewPath("status").Child("config")
	for _, used := range []struct {
		field  string
		source *corev1.NodeConfigSource
	}{{"assigned", n.Status.Config.Assigned}, {"active", n.Status.Config.Active}, {"lastKnownGood", n.Status.Config.LastKnownGood}} {
		if used.source == nil {
			continue
		}
		checkConfigSource(f, used.source, at.Child(used.field), func(m *corev1.ConfigMapNodeConfigSource, at *kinds.Path) {
			f.NonEmpty(at.Child("uid"), string(m.UID))
			f.NonEmpty(at.Child("resourceVersion"), m.ResourceVersion)
		})
	}
}

// checkConfigSource wants a config map, and of it what more says and its place.
func checkConfigSource(f *kinds.Faults, source *corev1.NodeConfigSource, at *kinds.Path, more func(*corev1.ConfigMapNodeConfigSource, *kinds.Path)) {
	m, here := source.ConfigMap, at.Child("configMap")
	if m == nil {
		f.Invalid(at, source, "exactly one reference subfield must be non-nil")
		return
	}
	more(m, here)
	if f.NonEmpty(here.Child("namespace"), m.Namespace) {
		f.Each(here.Child("namespace"), m.Namespace, apivalidation.ValidateNamespaceName(m.Namespace, false))
	}
	if f.NonEmpty(here.Child("name"), m.Name) {
		f.Each(here.Child("name"), m.Name, apivalidation.NameIsDNSSubdomain(m.Name, false))
	}
	if f.NonEmpty(here.Child("kubeletConfigKey"), m.KubeletConfigKey) {
		f.Each(here.Child("kubeletConfigKey"), m.KubeletConfigKey, validation.IsConfigMapKey(m.KubeletConfigKey))
	}
}
