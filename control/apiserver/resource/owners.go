package resource

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/sampan-dev/sampan/kinds"
)

// builtInTypes is the typed schema of all built-in kinds. Parsing it takes
// upwards of 100 ms: it is done once, off the path where possible.
func builtInTypes(s *runtime.Scheme) managedfields.TypeConverter {
	return applyconfigurations.NewTypeConverter(s)
}

// fieldManagers keep who owns which field, a manager for each kind and subresource.
type fieldManagers struct {
	server    *Server
	converter func() managedfields.TypeConverter
	made      sync.Map // managerKey -> *managedfields.FieldManager
}

type managerKey struct {
	kind *kinds.Kind
	sub  string
}

func newFieldManagers(s *Server) *fieldManagers {
	return &fieldManagers{
		server: s,
		converter: sync.OnceValue(func() managedfields.TypeConverter {
			return s.cfg.TypeConverter(s.cfg.Scheme)
		}),
	}
}

// of returns the manager of a kind, or of one of its subresources.
func (f *fieldManagers) of(k *kinds.Kind, sub string) (*managedfields.FieldManager, error) {
	key := managerKey{k, sub}
	if m, ok := f.made.Load(key); ok {
		return m.(*managedfields.FieldManager), nil
	}
	m, err := f.build(k, sub)
	if err != nil {
		return nil, fmt.Errorf("field manager of %q: %w", k.GVK, err)
	}
	kept, _ := f.made.LoadOrStore(key, m)
	return kept.(*managedfields.FieldManager), nil
}

func (f *fieldManagers) build(k *kinds.Kind, sub string) (*managedfields.FieldManager, error) {
	rules := kindRules{k}
	reset := fieldpath.NewExcludeFilterSetMap(resetFields(k, sub))
	gv := k.GVK.GroupVersion()
	if _, ok := k.New().(runtime.Unstructured); ok {
		types := managedfields.NewDeducedTypeConverter()
		if f.server.cfg.CustomTypes != nil {
			if known := f.server.cfg.CustomTypes(k.GVK); known != nil {
				types = known
			}
		}
		return managedfields.NewDefaultCRDFieldManager(types, rules, rules, rules, k.GVK, gv, sub, reset)
	}
	return managedfields.NewDefaultFieldManager(f.converter(), rules, rules, rules, k.GVK, gv, sub, reset)
}

// resetFields are those that a write through the resource, or the subresource,
// cannot set, so that nobody comes to own them by it.
func resetFields(k *kinds.Kind, sub string) map[fieldpath.APIVersion]*fieldpath.Set {
	hidden := ""
	for _, s := range k.Subresources {
		if s.Name == "status" && s.Copy != nil {
			hidden = "status"
		}
	}
	if sub == "status" {
		hidden = "spec"
	}
	if hidden == "" {
		return nil
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(k.GVK.GroupVersion().String()): fieldpath.NewSet(fieldpath.MakePathOrDie(hidden)),
	}
}

// track writes into obj who owns the fields that differ from old, which is nil
// for a new object.
func (c *call) track(obj, old kinds.Object) {
	sub := ""
	if c.sub != nil {
		sub = c.sub.Name
	}
	m, err := c.server.fields.of(c.kind, sub)
	if err != nil {
		c.server.cfg.Log.Error("track field owners", "kind", c.kind.GVK, "err", err)
		return
	}
	live := kindRules{c.kind}.empty()
	if old != nil {
		live = old.DeepCopyObject().(kinds.Object)
	}
	tracked, ok := m.UpdateNoErrors(live, obj, c.req.manager()).(kinds.Object)
	if ok && tracked != obj {
		obj.SetManagedFields(tracked.GetManagedFields())
	}
}

// kindRules is what the field manager wants to know of a kind: how to convert,
// default and make its objects. There is but one version of each.
type kindRules struct{ kind *kinds.Kind }

func (r kindRules) empty() kinds.Object {
	obj := r.kind.New()
	obj.GetObjectKind().SetGroupVersionKind(r.kind.GVK)
	return obj
}

func (r kindRules) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	if gvk != r.kind.GVK {
		return nil, runtime.NewNotRegisteredErrForKind(r.kind.GVK.Kind, gvk)
	}
	return r.empty(), nil
}

func (r kindRules) Default(obj runtime.Object) {
	if o, ok := obj.(kinds.Object); ok && r.kind.Strategy.Default != nil {
		r.kind.Strategy.Default(o)
	}
}

func (r kindRules) Convert(_, _, _ any) error {
	return fmt.Errorf("kind %q has one version only", r.kind.GVK)
}

func (r kindRules) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	want, ok := gv.KindForGroupVersionKinds([]schema.GroupVersionKind{r.kind.GVK})
	if !ok || want != r.kind.GVK {
		return nil, runtime.NewNotRegisteredGVKErrForTarget(r.kind.GVK.Kind, r.kind.GVK, gv)
	}
	// A merged configuration comes out of the typed schema as maps.
	if u, ok := in.(*unstructured.Unstructured); ok {
		typed := r.kind.New()
		if _, same := typed.(*unstructured.Unstructured); !same {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
				return nil, fmt.Errorf("convert to %q: %w", r.kind.GVK, err)
			}
			in = typed
		}
	}
	in.GetObjectKind().SetGroupVersionKind(r.kind.GVK)
	return in, nil
}

func (r kindRules) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
