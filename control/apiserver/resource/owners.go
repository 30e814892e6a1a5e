package resource

import (
	"cmp"
	"fmt"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/sampan-dev/sampan/control/apiserver/typed"
	"github.com/sampan-dev/sampan/kinds"
)

// builtInTypes is the typed schema of all built-in kinds, made once, on first use.
func builtInTypes(s *runtime.Scheme) managedfields.TypeConverter {
	types, err := typed.Converter(s)
	if err != nil {
		panic(err) // what is built in is damaged
	}
	return types
}

// fieldManagers keep who owns which field, a manager for each kind and subresource.
type fieldManagers struct {
	server    *Server
	converter func() managedfields.TypeConverter
	made      sync.Map // managerKey -> *managedfields.FieldManager
	known     *Verdicts
}

type managerKey struct {
	kind *kinds.Kind
	sub  string
}

func newFieldManagers(s *Server) *fieldManagers {
	return &fieldManagers{
		server: s,
		known:  s.cfg.Verdicts,
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
	if !f.server.serves(k) {
		f.made.Delete(key) // the request came before the kind went: nobody would forget it
	}
	return kept.(*managedfields.FieldManager), nil
}

// forget lets go of the managers of a kind that is served no more.
func (f *fieldManagers) forget(k *kinds.Kind) {
	f.known.forget() // it is by name
	f.made.Range(func(key, _ any) bool {
		if key.(managerKey).kind == k {
			f.made.Delete(key)
		}
		return true
	})
}

func (f *fieldManagers) build(k *kinds.Kind, sub string) (*managedfields.FieldManager, error) {
	part := subresource(k, sub)
	if foreign(k, part) {
		rules := kindRules{faceKind(part)}
		types := managedfields.NewDeducedTypeConverter() // client-go's schema is without Scale, which has no lists
		return managedfields.NewDefaultFieldManager(types, rules, rules, rules, part.GVK, part.GVK.GroupVersion(), sub, nil)
	}
	rules := kindRules{k}
	reset := fieldpath.NewExcludeFilterSetMap(resetFields(k, part))
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
	return managedfields.NewDefaultFieldManager(f.typesOf(k), rules, rules, rules, k.GVK, gv, sub, reset)
}

// typesOf is the typed schema of a built-in kind, or of one that the configuration
// knows; lists of others are atomic.
func (f *fieldManagers) typesOf(k *kinds.Kind) managedfields.TypeConverter {
	types := f.converter()
	empty := k.New()
	empty.GetObjectKind().SetGroupVersionKind(k.GVK)
	if _, err := types.ObjectToTyped(empty); err == nil {
		return types
	}
	if own := f.server.cfg.CustomTypes; own != nil {
		if known := own(k.GVK); known != nil {
			return known
		}
	}
	return managedfields.NewDeducedTypeConverter()
}

// subresource finds a part of a kind by its name; nil for the kind itself.
func subresource(k *kinds.Kind, name string) *kinds.Subresource {
	for i := range k.Subresources {
		if k.Subresources[i].Name == name {
			return &k.Subresources[i]
		}
	}
	return nil
}

// foreign says that a subresource speaks another kind than its parent (scale).
func foreign(k *kinds.Kind, sub *kinds.Subresource) bool {
	return sub != nil && !sub.GVK.Empty() && sub.GVK != k.GVK
}

// faceKind is the kind that a foreign subresource speaks, as far as the field
// manager asks.
func faceKind(sub *kinds.Subresource) *kinds.Kind {
	return &kinds.Kind{GVK: sub.GVK, New: func() kinds.Object { return sub.New().(kinds.Object) }}
}

// resetFields are those that a write through the resource, or the subresource,
// cannot set, so that nobody comes to own them by it.
func resetFields(k *kinds.Kind, sub *kinds.Subresource) map[fieldpath.APIVersion]*fieldpath.Set {
	hidden := k.Strategy.Reset
	if status := subresource(k, "status"); hidden == nil && status != nil && status.Copy != nil {
		hidden = []string{"status"}
	}
	switch {
	case sub != nil && sub.Reset != nil:
		hidden = sub.Reset
	case sub != nil && sub.Name == "status":
		hidden = []string{"spec"}
	}
	if len(hidden) == 0 {
		return nil
	}
	set := fieldpath.NewSet()
	for _, path := range hidden {
		set.Insert(fieldpath.MakePathOrDie(words(path)...))
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(k.GVK.GroupVersion().String()): set}
}

// words are the parts of a dotted path, as fieldpath wants them.
func words(path string) []any {
	var parts []any
	for word := range strings.SplitSeq(strings.TrimPrefix(path, "."), ".") {
		parts = append(parts, word)
	}
	return parts
}

// fieldManager is the manager of what the call speaks of.
func (c *call) fieldManager() (*managedfields.FieldManager, error) {
	name := ""
	if c.sub != nil {
		name = c.sub.Name
	}
	return c.server.fields.of(c.kind, name)
}

// rules are those of what the call speaks of.
func (c *call) rules() kindRules {
	if c.foreign() {
		return kindRules{faceKind(c.sub)}
	}
	return kindRules{c.kind}
}

// face is old as the client of the call sees it: old itself, or what the
// subresource shows of it, with those owners that it can speak of.
func (c *call) face(old kinds.Object) (kinds.Object, error) {
	if c.sub == nil || c.sub.Show == nil {
		return old, nil
	}
	shown, ok := c.sub.Show(old).(kinds.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("subresource %q shows a %T", c.sub.Name, c.sub.Show(old)))
	}
	if !c.foreign() {
		return shown, nil
	}
	owners, err := c.scaleOwners(old).ToSubresource()
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	shown.SetManagedFields(owners)
	return shown, nil
}

// passOwners takes the owners that body tells over to next. Those of a scale
// become those of the field that its replicas stand for.
func (c *call) passOwners(next, body, old kinds.Object) error {
	if !c.foreign() {
		next.SetManagedFields(body.GetManagedFields())
		return nil
	}
	owners, err := c.scaleOwners(old).ToParent(body.GetManagedFields())
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	next.SetManagedFields(owners)
	return nil
}

// scaleOwners moves the owners of replicas between an object and its scale.
func (c *call) scaleOwners(old kinds.Object) *managedfields.ScaleHandler {
	gv := c.kind.GVK.GroupVersion()
	at := fieldpath.MakePathOrDie(words(cmp.Or(c.sub.Replicas, "spec.replicas"))...)
	return managedfields.NewScaleHandler(old.GetManagedFields(), gv, managedfields.ResourcePathMappings{gv.String(): at})
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
	if gvk != r.kind.GVK && (r.kind.Custom == nil || gvk.GroupKind() != r.kind.GVK.GroupKind()) {
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
	if u, ok := in.(*unstructured.Unstructured); ok && r.kind.Custom != nil {
		return r.convert(u, gv)
	}
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

// convert gives a custom object in another version: other versions' owners speak
// of it.
func (r kindRules) convert(in *unstructured.Unstructured, gv runtime.GroupVersioner) (runtime.Object, error) {
	from := in.GroupVersionKind()
	want, ok := gv.KindForGroupVersionKinds([]schema.GroupVersionKind{from})
	if !ok {
		return nil, runtime.NewNotRegisteredGVKErrForTarget(from.Kind, from, gv)
	}
	if want == from {
		return in, nil
	}
	return r.kind.Custom.Convert(in, want)
}

func (r kindRules) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
