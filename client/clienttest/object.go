package clienttest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// part is a field of an object: "Spec" or "Status"; invalid when it has none.
func part(obj client.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

// merge is what an update of the object or of a subresource leaves stored.
func merge(subresource string, body, old client.Object) client.Object {
	next := old.DeepCopyObject().(client.Object)
	switch subresource {
	case "status":
		part(next, "Status").Set(part(body, "Status"))
		next.SetLabels(body.GetLabels())
		next.SetAnnotations(body.GetAnnotations())
		return next
	case "finalize":
		next.(*corev1.Namespace).Spec.Finalizers = body.(*corev1.Namespace).Spec.Finalizers
		return next
	}
	body.SetUID(old.GetUID())
	body.SetResourceVersion(old.GetResourceVersion())
	body.SetCreationTimestamp(old.GetCreationTimestamp())
	body.SetDeletionTimestamp(old.GetDeletionTimestamp())
	body.SetGeneration(old.GetGeneration())
	if status := part(body, "Status"); status.IsValid() {
		status.Set(part(next, "Status"))
	}
	if spec := part(body, "Spec"); spec.IsValid() && !reflect.DeepEqual(spec.Interface(), part(next, "Spec").Interface()) {
		body.SetGeneration(old.GetGeneration() + 1)
	}
	return body
}

// kept says that the object outlives its deletion for a reason of its own.
func kept(obj client.Object) bool {
	ns, ok := obj.(*corev1.Namespace)
	return ok && len(ns.Spec.Finalizers) > 0
}

// propagate turns a propagation policy into its finalizer.
func propagate(obj client.Object, opts metav1.DeleteOptions) {
	if opts.PropagationPolicy == nil {
		return
	}
	finalizers := slices.DeleteFunc(obj.GetFinalizers(), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	switch *opts.PropagationPolicy {
	case metav1.DeletePropagationOrphan:
		finalizers = append(finalizers, metav1.FinalizerOrphanDependents)
	case metav1.DeletePropagationForeground:
		finalizers = append(finalizers, metav1.FinalizerDeleteDependents)
	}
	obj.SetFinalizers(finalizers)
}

// bind answers pods/binding.
func (m *Memory) bind(t target.Target, body runtime.Object) (runtime.Object, error) {
	t.Subresource = ""
	old, err := m.find(t)
	if err != nil {
		return nil, err
	}
	pod := old.DeepCopyObject().(*corev1.Pod)
	if pod.Spec.NodeName != "" {
		return nil, apierrors.NewConflict(t.Resource.GroupResource(), t.Name, fmt.Errorf("pod is already assigned to node %q", pod.Spec.NodeName))
	}
	pod.Spec.NodeName = body.(*corev1.Binding).Target.Name
	m.store(t.Resource.GroupResource(), watch.Modified, old, pod)
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// patched applies a patch to a copy of old.
func patched(old client.Object, pt types.PatchType, data []byte) (client.Object, error) {
	before, err := json.Marshal(old)
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	var after []byte
	switch pt {
	case types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, data)
	case types.StrategicMergePatchType:
		after, err = strategicpatch.StrategicMergePatch(before, data, old)
	case types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(data); err == nil {
			after, err = p.Apply(before)
		}
	default:
		err = fmt.Errorf("unknown patch type %q", pt)
	}
	if err != nil {
		return nil, fmt.Errorf("apply patch: %w", err)
	}
	next := reflect.New(reflect.TypeOf(old).Elem()).Interface().(client.Object)
	if err := json.Unmarshal(after, next); err != nil {
		return nil, fmt.Errorf("decode patched object: %w", err)
	}
	return next, nil
}

// matcher is the selection of a list or watch.
func matcher(namespace string, opts metav1.ListOptions) (func(client.Object) bool, error) {
	byLabel, err := labels.Parse(opts.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	byField, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return func(obj client.Object) bool {
		if namespace != "" && obj.GetNamespace() != namespace {
			return false
		}
		set := fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()}
		switch obj := obj.(type) {
		case *corev1.Pod:
			set["spec.nodeName"] = obj.Spec.NodeName
		case *resourcev1.ResourceSlice:
			set["spec.driver"] = obj.Spec.Driver
			if obj.Spec.NodeName != nil {
				set["spec.nodeName"] = *obj.Spec.NodeName
			}
		}
		return byLabel.Matches(labels.Set(obj.GetLabels())) && byField.Matches(set)
	}, nil
}

// Seed stores objects as they are, uid and status included, for the start of a
// test. It panics when it cannot.
func (m *Memory) Seed(objects ...client.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, obj := range objects {
		obj = obj.DeepCopyObject().(client.Object)
		r, ok := m.resourceOf(obj)
		if !ok {
			panic(fmt.Sprintf("clienttest: no resource for %T", obj))
		}
		if obj.GetUID() == "" {
			obj.SetUID(types.UID("uid-" + obj.GetName()))
		}
		m.store(r.Resource.GroupResource(), watch.Added, nil, obj)
	}
}

func (m *Memory) resourceOf(obj client.Object) (target.Target, bool) {
	ref := client.Reference(obj)
	for gvr, gvk := range m.kinds {
		if gvk.GroupVersion().String() == ref.APIVersion && gvk.Kind == ref.Kind {
			return target.Of(gvr, obj.GetNamespace()), true
		}
	}
	return target.Target{}, false
}
