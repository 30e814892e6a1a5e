// Package target names what a request is about: a collection, an object, or
// a subresource of an object. Both sides of the in-process transport share it,
// so it knows nothing of either.
package target

import "k8s.io/apimachinery/pkg/runtime/schema"

// Target is the "where" of one API request. The zero value names nothing.
type Target struct {
	// Resource is the collection, in the version the caller speaks.
	Resource schema.GroupVersionResource
	// Namespace is empty for cluster-scoped resources and for requests across
	// all namespaces.
	Namespace string
	// Name is empty when the collection itself is meant.
	Name string
	// Subresource is the part after the name, "" for the object itself.
	Subresource string
}

// Of names a whole collection in one namespace, or in all when namespace is "".
func Of(r schema.GroupVersionResource, namespace string) Target {
	return Target{Resource: r, Namespace: namespace}
}

// Object narrows t to one object.
func (t Target) Object(name string) Target {
	t.Name = name
	return t
}

// Sub narrows t to a subresource of its object.
func (t Target) Sub(subresource string) Target {
	t.Subresource = subresource
	return t
}

// Key is "namespace/name", or only the name when there is no namespace.
func (t Target) Key() string {
	if t.Namespace == "" {
		return t.Name
	}
	return t.Namespace + "/" + t.Name
}

// String is the path a person would recognise: "pods/log default/web".
func (t Target) String() string {
	s := t.Resource.GroupResource().String()
	if t.Subresource != "" {
		s += "/" + t.Subresource
	}
	if k := t.Key(); k != "" {
		s += " " + k
	}
	return s
}
