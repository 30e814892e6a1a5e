// Package clienttest is for tests of whoever speaks through a client.Transport:
// Memory is a small working server to speak to, and Run is the exam that every
// transport to a real server passes.
package clienttest

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
)

// Memory is a client.Transport that is its own server: resource versions,
// conflicts, watches, finalizers, preconditions, generations and the status
// subresource are true to the API; validation, defaulting, admission, graceful
// deletion of pods and paging are not there. It serves every kind of
// internal/scheme without being told.
type Memory struct {
	// Before, when set, sees every request first ("create", target) and may
	// refuse it: that is how tests make a server fail.
	Before func(verb string, t target.Target) error

	mu      sync.Mutex
	rev     int64
	objects map[schema.GroupResource]map[string]client.Object // by "namespace/name"
	history []change
	changed chan struct{} // closed and replaced at every change
	hangUp  chan struct{} // closed and replaced to end all watches
	kinds   map[schema.GroupVersionResource]schema.GroupVersionKind
}

// change is one event of the history; old is nil for creations.
type change struct {
	rev      int64
	resource schema.GroupResource
	kind     watch.EventType
	old, obj client.Object
}

// NewMemory returns an empty server.
func NewMemory() *Memory {
	m := &Memory{
		objects: map[schema.GroupResource]map[string]client.Object{},
		changed: make(chan struct{}),
		hangUp:  make(chan struct{}),
		kinds:   map[schema.GroupVersionResource]schema.GroupVersionKind{},
	}
	for gvk := range scheme.Scheme().AllKnownTypes() {
		plural, _ := meta.UnsafeGuessKindToResource(gvk)
		m.kinds[plural] = gvk
	}
	return m
}

func (m *Memory) begin(verb string, t target.Target) error {
	if m.Before == nil {
		return nil
	}
	return m.Before(verb, t)
}

// Get implements client.Transport.
func (m *Memory) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	if err := m.begin("get", t); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, err := m.find(t)
	if err != nil {
		return nil, err
	}
	return obj, nil
}

// List implements client.Transport.
func (m *Memory) List(_ context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	if err := m.begin("list", t); err != nil {
		return nil, err
	}
	match, err := matcher(t.Namespace, opts)
	if err != nil {
		return nil, err
	}
	gvk, ok := m.kinds[t.Resource]
	if !ok {
		return nil, apierrors.NewNotFound(t.Resource.GroupResource(), "")
	}
	gvk.Kind += "List"
	list, err := scheme.Scheme().New(gvk)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []runtime.Object
	for _, obj := range m.objects[t.Resource.GroupResource()] {
		if match(obj) {
			found = append(found, obj)
		}
	}
	slices.SortFunc(found, func(a, b runtime.Object) int {
		return cmp.Compare(keyOf(a.(client.Object)), keyOf(b.(client.Object)))
	})
	if err := meta.SetList(list, found); err != nil {
		return nil, fmt.Errorf("list %s: %w", t, err)
	}
	lm, err := meta.ListAccessor(list)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t, err)
	}
	lm.SetResourceVersion(strconv.FormatInt(m.rev, 10))
	return list, nil
}

// Create implements client.Transport.
func (m *Memory) Create(_ context.Context, t target.Target, body runtime.Object, _ metav1.CreateOptions) (runtime.Object, error) {
	if err := m.begin("create", t); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.Subresource == "binding" {
		return m.bind(t, body)
	}
	obj := body.DeepCopyObject().(client.Object)
	if obj.GetNamespace() == "" {
		obj.SetNamespace(t.Namespace)
	}
	m.rev++
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(fmt.Sprintf("%s%05d", obj.GetGenerateName(), m.rev%100000))
	}
	if obj.GetName() == "" {
		return nil, apierrors.NewBadRequest("name or generateName is required")
	}
	if _, exists := m.objects[t.Resource.GroupResource()][keyOf(obj)]; exists {
		return nil, apierrors.NewAlreadyExists(t.Resource.GroupResource(), obj.GetName())
	}
	obj.SetUID(types.UID(fmt.Sprintf("00000000-0000-0000-0000-%012d", m.rev)))
	obj.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	obj.SetDeletionTimestamp(nil)
	if part(obj, "Spec").IsValid() {
		obj.SetGeneration(1)
	}
	m.store(t.Resource.GroupResource(), watch.Added, nil, obj)
	return obj, nil
}

// Update implements client.Transport.
func (m *Memory) Update(_ context.Context, t target.Target, body runtime.Object, _ metav1.UpdateOptions) (runtime.Object, error) {
	if err := m.begin("update", t); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.update(t, body.DeepCopyObject().(client.Object))
}

// Patch implements client.Transport; applying is not there.
func (m *Memory) Patch(_ context.Context, t target.Target, pt types.PatchType, data []byte, _ metav1.PatchOptions) (runtime.Object, error) {
	if err := m.begin("patch", t); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, err := m.find(t)
	if err != nil {
		return nil, err
	}
	next, err := patched(old, pt, data)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if next.GetUID() != old.GetUID() {
		return nil, apierrors.NewConflict(t.Resource.GroupResource(), t.Name, fmt.Errorf("uid %q is not %q", next.GetUID(), old.GetUID()))
	}
	return m.update(t, next)
}

// Delete implements client.Transport.
func (m *Memory) Delete(_ context.Context, t target.Target, opts metav1.DeleteOptions) error {
	if err := m.begin("delete", t); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, err := m.find(t)
	if err != nil {
		return err
	}
	return m.remove(t, old, opts)
}

// DeleteCollection implements client.Transport.
func (m *Memory) DeleteCollection(_ context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	if err := m.begin("deletecollection", t); err != nil {
		return err
	}
	match, err := matcher(t.Namespace, list)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, obj := range m.objects[t.Resource.GroupResource()] {
		if !match(obj) {
			continue
		}
		if err := m.remove(t, obj, opts); err != nil {
			return err
		}
	}
	return nil
}

// find returns what t names. The caller holds the lock, here and below.
func (m *Memory) find(t target.Target) (client.Object, error) {
	obj, ok := m.objects[t.Resource.GroupResource()][t.Key()]
	if !ok {
		return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
	}
	return obj, nil
}

// store writes one change: obj gets the next revision.
func (m *Memory) store(r schema.GroupResource, kind watch.EventType, old, obj client.Object) {
	m.rev++
	obj.SetResourceVersion(strconv.FormatInt(m.rev, 10))
	if m.objects[r] == nil {
		m.objects[r] = map[string]client.Object{}
	}
	if kind == watch.Deleted {
		delete(m.objects[r], keyOf(obj))
	} else {
		m.objects[r][keyOf(obj)] = obj
	}
	m.history = append(m.history, change{m.rev, r, kind, old, obj})
	close(m.changed)
	m.changed = make(chan struct{})
}

// update puts next, which the caller gave away, in the place of what is stored.
func (m *Memory) update(t target.Target, next client.Object) (runtime.Object, error) {
	old, err := m.find(t)
	if err != nil {
		return nil, err
	}
	resource := t.Resource.GroupResource()
	if rv := next.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(resource, t.Name, fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if next.GetUID() != "" && next.GetUID() != old.GetUID() {
		return nil, apierrors.NewConflict(resource, t.Name, fmt.Errorf("uid %q is not %q", next.GetUID(), old.GetUID()))
	}
	next = merge(t.Subresource, next, old)
	if reflect.DeepEqual(next, old) {
		return old, nil
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 && !kept(next) {
		m.store(resource, watch.Deleted, old, next)
		return next, nil
	}
	m.store(resource, watch.Modified, old, next)
	return next, nil
}

func (m *Memory) remove(t target.Target, old client.Object, opts metav1.DeleteOptions) error {
	resource := t.Resource.GroupResource()
	if p := opts.Preconditions; p != nil {
		if p.UID != nil && *p.UID != old.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion() {
			return apierrors.NewConflict(resource, old.GetName(), fmt.Errorf("precondition failed"))
		}
	}
	next := old.DeepCopyObject().(client.Object)
	propagate(next, opts)
	if len(next.GetFinalizers()) == 0 && !kept(next) {
		m.store(resource, watch.Deleted, old, next)
		return nil
	}
	if next.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(time.Now().Truncate(time.Second))
		next.SetDeletionTimestamp(&now)
		next.SetGeneration(next.GetGeneration() + 1)
	}
	if !reflect.DeepEqual(next, old) {
		m.store(resource, watch.Modified, old, next)
	}
	return nil
}

func keyOf(obj client.Object) string {
	if obj.GetNamespace() == "" {
		return obj.GetName()
	}
	return obj.GetNamespace() + "/" + obj.GetName()
}
