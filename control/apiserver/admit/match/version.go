package match

import (
	"fmt"
	"reflect"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/kinds"
)

// Objects are the object and the old one in the kind that was found; nil where
// there is none. They may be the request's own: read only.
func (r *Request) Objects(f Found) (obj, old runtime.Object, err error) {
	if obj, err = convert(r.Object, r.Kind, f.kind, r.Target.Subresource); err != nil {
		return nil, nil, err
	}
	old, err = convert(r.Old, r.Kind, f.kind, r.Target.Subresource)
	return obj, old, err
}

// convert shows obj, of kind from, as kind to. What a subresource with a kind of
// its own speaks of is the same in all.
func convert(obj runtime.Object, from, to *kinds.Kind, sub string) (runtime.Object, error) {
	own, ok := obj.(kinds.Object)
	if obj == nil || from == to || !ok || obj.GetObjectKind().GroupVersionKind() != from.GVK {
		return obj, nil
	}
	if from.Custom != nil {
		return from.Custom.Convert(own, to.GVK)
	}
	if from.View == nil && to.View == nil {
		return nil, fmt.Errorf("%s cannot be shown as %s", from.GVK, to.GVK)
	}
	if from.View != nil {
		own = from.View.ToStored(own)
	}
	if to.View != nil {
		own = to.View.FromStored(own)
	}
	own.GetObjectKind().SetGroupVersionKind(to.GVK)
	return own, nil
}

// Change puts changed, of the kind that was found, in the place of the request's
// object, completed by the kind's defaults.
func (r *Request) Change(f Found, changed runtime.Object) error {
	if own, ok := changed.(kinds.Object); ok && f.kind != nil && f.kind != r.Kind && f.kind.Custom != nil &&
		changed.GetObjectKind().GroupVersionKind() == f.kind.GVK && f.kind.Strategy.Default != nil {
		f.kind.Strategy.Default(own) // also what only that version defaults
	}
	back, err := convert(changed, f.kind, r.Kind, r.Target.Subresource)
	if err != nil {
		return err
	}
	into, from := reflect.ValueOf(r.Object), reflect.ValueOf(back)
	if into.Type() != from.Type() {
		return fmt.Errorf("the object became a %T, it was a %T", back, r.Object)
	}
	if err := r.complete(back); err != nil {
		return err
	}
	into.Elem().Set(from.Elem())
	return nil
}

// complete applies defaults, and drops what a custom kind has no place for.
func (r *Request) complete(obj runtime.Object) error {
	own, ok := obj.(kinds.Object)
	if r.Kind == nil || !ok || obj.GetObjectKind().GroupVersionKind() != r.Kind.GVK {
		return nil
	}
	if r.Kind.Custom != nil && r.Kind.Custom.Coerce != nil {
		if _, err := r.Kind.Custom.Coerce(own); err != nil {
			return err
		}
	}
	if r.Kind.Strategy.Default != nil {
		r.Kind.Strategy.Default(own)
	}
	return nil
}

// codec writes objects as JSON and reads them again, leniently and strictly.
var codec = sync.OnceValue(func() (c struct{ lax, strict *json.Serializer }) {
	s := scheme.Scheme()
	c.lax = json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{})
	c.strict = json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Strict: true})
	return c
})

// Encode gives an object's JSON.
func Encode(obj runtime.Object) ([]byte, error) { return runtime.Encode(codec().lax, obj) }

// Decode reads JSON into a new object of like's type. Strict refuses unknown and
// duplicate fields.
func Decode(data []byte, like runtime.Object, strict bool) (runtime.Object, error) {
	var into runtime.Object = &unstructured.Unstructured{}
	if _, custom := like.(*unstructured.Unstructured); !custom {
		into = reflect.New(reflect.TypeOf(like).Elem()).Interface().(runtime.Object)
	}
	d := codec().lax
	if strict {
		d = codec().strict
	}
	out, _, err := d.Decode(data, nil, into)
	if err != nil {
		return nil, err
	}
	if got, want := out.GetObjectKind().GroupVersionKind(), like.GetObjectKind().GroupVersionKind(); got != want {
		return nil, fmt.Errorf("the object became a %s, it was a %s", got, want)
	}
	return out, nil
}

// Review describes the request as an AdmissionReview has it, without objects.
func (r *Request) Review(f Found) *admissionv1.AdmissionRequest {
	user := authenticationv1.UserInfo{Username: r.User.Name, UID: r.User.UID, Groups: r.User.Groups,
		Extra: map[string]authenticationv1.ExtraValue{}}
	for key, values := range r.User.Extra {
		user.Extra[key] = values
	}
	dry := r.DryRun
	kind, resource := metav1.GroupVersionKind(r.GVK), metav1.GroupVersionResource(r.Target.Resource)
	return &admissionv1.AdmissionRequest{
		Kind: metav1.GroupVersionKind(f.GVK), Resource: metav1.GroupVersionResource(f.Resource), SubResource: r.Target.Subresource,
		RequestKind: &kind, RequestResource: &resource, RequestSubResource: r.Target.Subresource,
		Name: r.Target.Name, Namespace: r.Namespace, Operation: admissionv1.Operation(r.Operation),
		UserInfo: user, DryRun: &dry, Options: runtime.RawExtension{Object: r.Options},
	}
}

// Authority answers what the request's user may.
func (r *Request) Authority(ask *authz.Authorizer) *cel.Authority {
	at := r.Target
	at.Namespace = r.Namespace
	return cel.NewAuthority(r.User, at, ask)
}
