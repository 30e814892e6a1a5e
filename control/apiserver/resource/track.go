package resource

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// maxVerdicts is how many shapes of writes are remembered, twice: with what is
// remembered of them they are some MiB at the very most.
const maxVerdicts = 512

// Verdicts remember what the field manager made of writes, by their shape: most
// writes are like another one, and the manager's own way, which compares typed
// values field by field, costs more than all the rest of a create. The young give
// way to the old when there are too many, so that what is used stays. The zero
// Verdicts are ready; any goroutine may use them.
type Verdicts struct {
	// Most is how many shapes are remembered, twice; 0 means maxVerdicts. Whoever lives
	// many short lives of a cluster in one process remembers more.
	Most int

	mu         sync.RWMutex
	young, old map[string][]owner
}

// owner is one entry of a record that a write led to.
type owner struct {
	entry metav1.ManagedFieldsEntry // without its time
	// from is the entry of the record before whose time it keeps; -1: it is the
	// writer's, and of now.
	from int
}

func (v *Verdicts) get(shape []byte) ([]owner, bool) {
	v.mu.RLock()
	found, ok := v.young[string(shape)]
	if ok {
		v.mu.RUnlock()
		return found, true
	}
	found, ok = v.old[string(shape)]
	v.mu.RUnlock()
	if ok {
		v.put(shape, found)
	}
	return found, ok
}

func (v *Verdicts) put(shape []byte, owners []owner) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.young) >= cmp.Or(v.Most, maxVerdicts) || v.young == nil {
		v.young, v.old = make(map[string][]owner), v.young
	}
	v.young[string(shape)] = owners
}

func (v *Verdicts) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.young, v.old = nil, nil
}

// shapers are buffers to use again.
var shapers = sync.Pool{New: func() any { return &shaper{b: make([]byte, 0, 1<<10)} }}

// track writes into obj who owns the fields that differ from old, which is nil
// for a new object.
func (c *call) track(obj, old kinds.Object) {
	if c.req.wide {
		obj.SetManagedFields(nil)
		return
	}
	s := shapers.Get().(*shaper)
	defer shapers.Put(s)
	s.b, s.failed, s.times, s.lone = s.b[:0], false, s.times[:0], s.lone[:0]
	var before []metav1.ManagedFieldsEntry
	if old != nil {
		before = old.GetManagedFields()
	}
	if !c.shape(s, obj, old, before) {
		c.trackSlowly(obj, old)
		obj.SetManagedFields(settledOwners(obj.GetManagedFields()))
		return
	}
	if known, ok := c.server.fields.known.get(s.b); ok {
		obj.GetObjectKind().SetGroupVersionKind(c.kind.GVK)
		obj.SetManagedFields(s.recordOf(known, before))
		return
	}
	if !c.trackSlowly(obj, old) {
		return
	}
	if owners, ok := s.verdictOf(obj.GetManagedFields(), before); ok {
		c.server.fields.known.put(s.b, owners)
	}
	obj.SetManagedFields(settledOwners(obj.GetManagedFields()))
}

// trackSlowly lets the field manager do it, and says whether it could.
func (c *call) trackSlowly(obj, old kinds.Object) bool {
	m, err := c.fieldManager()
	if err != nil {
		c.server.cfg.Log.Error("track field owners", "kind", c.gvk(), "err", err)
		return false
	}
	live := c.rules().empty()
	if old != nil {
		live = old.DeepCopyObject().(kinds.Object)
		live.SetManagedFields(slices.Clone(old.GetManagedFields())) // verdictOf knows times by their pointers
	}
	tracked, err := m.Update(live, obj, c.req.manager())
	if err != nil {
		c.server.cfg.Log.Error("track field owners: the record stays as it was", "kind", c.gvk(), "err", err)
		obj.SetManagedFields(live.GetManagedFields())
		return false
	}
	if t, ok := tracked.(kinds.Object); ok && t != obj {
		obj.SetManagedFields(t.GetManagedFields())
	}
	return true
}

// shape writes all that the record after the write depends on; false when there
// is no telling.
func (c *call) shape(s *shaper, obj, old kinds.Object, before []metav1.ManagedFieldsEntry) bool {
	if _, ok := obj.(runtime.Unstructured); ok || c.foreign() || len(before) >= maxOwners {
		return false
	}
	if own := obj.GetManagedFields(); own != nil {
		if old == nil || len(own) == 0 || !sameRecord(own, before) {
			return false // the client wants to change the record itself
		}
		obj.SetManagedFields(nil) // as good, and the times are those of before
	}
	s.b = appendText(s.b, c.kind.GVK.String())
	sub := ""
	if c.sub != nil {
		sub = c.sub.Name
	}
	s.b = appendText(appendText(s.b, sub), c.req.manager())
	next := reflect.ValueOf(obj).Elem()
	m := mouldOf(next.Type())
	if old != nil {
		s.note(m, reflect.ValueOf(old).Elem())
	}
	s.note(m, next)
	for i := range before {
		e := &before[i]
		for _, word := range []string{e.Manager, string(e.Operation), e.APIVersion, e.Subresource, e.FieldsType, s.general(e.FieldsV1.GetRawString())} {
			s.b = appendText(s.b, word)
		}
	}
	if old == nil {
		s.b = append(s.b, added)
		s.whole(m, next, false)
		return !s.failed
	}
	s.b = append(s.b, changed)
	s.some(old.GetUID() == "")
	prev := reflect.ValueOf(old).Elem()
	if prev.Type() != next.Type() {
		return false
	}
	s.change(m, prev, next)
	return !s.failed
}

// maxOwners is how many entries make a record whose oldest ones may be merged:
// that depends on their times.
const maxOwners = 9

// sameRecord compares records of field owners.
func sameRecord(a, b []metav1.ManagedFieldsEntry) bool {
	if !sameOwners(a, b) {
		return false
	}
	for i := range a {
		if !a[i].Time.Equal(b[i].Time) {
			return false
		}
	}
	return true
}

// verdictOf makes what can be remembered of a record; false when it is unclear
// whose times it has, or where a key stands in it.
func (s *shaper) verdictOf(after, before []metav1.ManagedFieldsEntry) ([]owner, bool) {
	owners := make([]owner, 0, len(after))
	for _, e := range after {
		o := owner{entry: e, from: slices.IndexFunc(before, func(b metav1.ManagedFieldsEntry) bool {
			return b.Manager == e.Manager && b.Operation == e.Operation && b.APIVersion == e.APIVersion && b.Subresource == e.Subresource
		})}
		if e.Time == nil || e.FieldsV1 == nil || o.from >= 0 && before[o.from].Time == nil {
			return nil, false
		}
		if o.from >= 0 && before[o.from].Time != e.Time {
			o.from = -1
		}
		text := s.general(e.FieldsV1.GetRawString())
		if s.mentions(text) {
			return nil, false
		}
		o.entry.FieldsV1 = metav1.NewFieldsV1(text)
		o.entry.Time = nil
		owners = append(owners, o)
	}
	return owners, true
}

// recordOf is the record that a write of a known shape leads to, in upstream's
// order: applied before updated, then by age, manager, version and subresource.
func (s *shaper) recordOf(known []owner, before []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	if len(known) == 0 {
		return nil
	}
	now := settledTime(metav1.Now())
	record := make([]metav1.ManagedFieldsEntry, len(known))
	for i, o := range known {
		record[i] = o.entry
		record[i].FieldsV1 = s.fieldsOf(o)
		when := now
		if o.from >= 0 {
			when = *before[o.from].Time
		}
		record[i].Time = &when
	}
	if len(record) > 1 {
		slices.SortFunc(record, compareOwners)
	}
	return record
}

func compareOwners(a, b metav1.ManagedFieldsEntry) int {
	if c := strings.Compare(string(a.Operation), string(b.Operation)); c != 0 {
		return c
	}
	switch x, y := a.Time.Unix(), b.Time.Unix(); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	if c := strings.Compare(a.Manager, b.Manager); c != 0 {
		return c
	}
	if c := strings.Compare(a.APIVersion, b.APIVersion); c != 0 {
		return c
	}
	return strings.Compare(a.Subresource, b.Subresource)
}
