package resource

import (
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// parted is an object of which a strategic merge patch names only some parts: those are
// taken apart, merged and put together, the rest is copied. Most patches are of a status
// or of some metadata, and to make maps of a whole pod and a pod of them again costs
// several times what the write does else.
type parted struct {
	named  kinds.Object // what the patch names
	rest   kinds.Object // all else
	fields []int        // of the struct, that the patch names
	owners []metav1.ManagedFieldsEntry
}

// partsOf parts current, which stays as it is and whose insides both parts share. An object
// that is to become one of another type is named whole.
func partsOf(current kinds.Object, change map[string]any, into runtime.Object) parted {
	whole := reflect.ValueOf(current).Elem()
	named, rest := reflect.New(whole.Type()), reflect.New(whole.Type())
	named.Elem().Set(whole)
	rest.Elem().Set(whole)
	p := parted{named: named.Interface().(kinds.Object), rest: rest.Interface().(kinds.Object)}
	all := directed(change) || reflect.TypeOf(current) != reflect.TypeOf(into)
	for i := range whole.NumField() {
		name, _, _ := strings.Cut(whole.Type().Field(i).Tag.Get("json"), ",")
		if _, is := change[name]; is || all || name == "" { // without a name it is the parts of what is inside
			p.fields = append(p.fields, i)
			rest.Elem().Field(i).SetZero()
		} else {
			named.Elem().Field(i).SetZero()
		}
	}
	if meta, is := change["metadata"].(map[string]any); is && !all && !directed(meta) {
		if _, is := meta["managedFields"]; !is {
			p.owners = current.GetManagedFields()
			p.named.SetManagedFields(nil)
		}
	}
	return p
}

// directed says that a patch has a directive, which may be about what it does not name.
func directed(change map[string]any) bool {
	for key := range change {
		if strings.HasPrefix(key, "$") {
			return true
		}
	}
	return false
}

// joined is the patched part, which it takes, and a copy of the rest.
func (p parted) joined(patched runtime.Object) runtime.Object {
	if len(p.fields) == reflect.ValueOf(p.named).Elem().NumField() && p.owners == nil {
		return patched
	}
	out := p.rest.DeepCopyObject().(kinds.Object)
	to, from := reflect.ValueOf(out).Elem(), reflect.ValueOf(patched).Elem()
	for _, i := range p.fields {
		to.Field(i).Set(from.Field(i))
	}
	if p.owners != nil {
		owners := make([]metav1.ManagedFieldsEntry, len(p.owners))
		for i := range p.owners {
			p.owners[i].DeepCopyInto(&owners[i])
		}
		out.SetManagedFields(owners)
	}
	return out
}
