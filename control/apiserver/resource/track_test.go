package resource

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/all"
)

type everybody struct{}

func (everybody) Authorize(context.Context, Access) (bool, string, error) { return true, "", nil }

// openServer is a server of all kinds over a memory store, for everybody; both are
// closed with the test.
func openServer(t *testing.T) *Server {
	t.Helper()
	st := memory.New(memory.Config{})
	t.Cleanup(func() { st.Close() })
	s, err := New(Config{Kinds: all.Kinds(), Store: st, Authorizer: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// kindNamed is a server's kind of a name that only one group has.
func kindNamed(s *Server, name string) *kinds.Kind {
	i := slices.IndexFunc(s.Kinds(), func(k *kinds.Kind) bool { return k.GVK.Kind == name })
	return s.Kinds()[i]
}

// What is remembered of writes is what the field manager says, whatever is written:
// objects of every kind, filled at random, changed at random, through the kind and
// its status, by several managers, against the manager itself.
func TestTrackAsTheFieldManager(t *testing.T) {
	s := openServer(t)
	total := 0
	for _, k := range s.Kinds() {
		if _, ok := k.New().(runtime.Unstructured); ok || k.Storage == "" {
			continue
		}
		synctest.Test(t, func(t *testing.T) { // no second begins in it: entries of one are in another order
			f := &filler{rand.New(rand.NewPCG(1, 2))}
			for round := range 8 {
				obj := k.New()
				f.fill(reflect.ValueOf(obj).Elem(), 0, round)
				obj.SetManagedFields(nil)
				obj.SetUID("u")
				total += trackBoth(t, s, k, writer{"", "ann"}, obj, nil)
				for step := range 12 {
					next := obj.DeepCopyObject().(kinds.Object)
					for range 1 + step%3 {
						f.alter(reflect.ValueOf(next).Elem())
					}
					next.SetUID("u")
					next.SetManagedFields(nil)
					if step%4 == 0 {
						next.SetManagedFields(obj.DeepCopyObject().(kinds.Object).GetManagedFields())
					}
					total += trackBoth(t, s, k, writer{[]string{"", "status"}[step%2*min(1, statuses(k))], []string{"ann", "bob"}[step/2%2]}, next, obj)
					obj = next
				}
			}
		})
	}
	if total < 100 {
		t.Errorf("only %d writes were like another one", total)
	}
}

func statuses(k *kinds.Kind) int {
	if sub := subresource(k, "status"); sub != nil {
		return 1
	}
	return 0
}

// writer is who writes which part.
type writer struct{ sub, manager string }

// trackBoth tracks a write thrice: by the manager, and twice by what is remembered.
// obj keeps the record. It says whether the shape was known, from another write.
func trackBoth(t *testing.T, s *Server, k *kinds.Kind, by writer, obj, old kinds.Object) int {
	t.Helper()
	c := &call{collection: &collection{server: s, kind: k, gvr: k.GVR()}, req: &Request{Verb: verbUpdate}, sub: subresource(k, by.sub)}
	c.req.Update.FieldManager = by.manager
	var before []metav1.ManagedFieldsEntry
	if old != nil {
		before = old.GetManagedFields()
	}
	known := 0
	if w := (&shaper{}); c.shape(w, obj.DeepCopyObject().(kinds.Object), old, before) {
		if _, ok := s.fields.known.get(w.b); ok {
			known = 1
		}
	}
	want := obj.DeepCopyObject().(kinds.Object)
	if !c.trackSlowly(want, old) {
		obj.SetManagedFields(want.GetManagedFields())
		return 0 // items of a list without their keys: the record stays as it was
	}
	for range 2 {
		got := obj.DeepCopyObject().(kinds.Object)
		c.track(got, old)
		if err := differ(got.GetManagedFields(), want.GetManagedFields()); err != "" {
			t.Fatalf("%s\nold %+v\nnew %+v", err, old, obj)
		}
	}
	obj.SetManagedFields(want.GetManagedFields())
	return known
}

func differ(got, want []metav1.ManagedFieldsEntry) string {
	if !sameOwners(got, want) {
		return fmt.Sprintf("got  %+v\nwant %+v", got, want)
	}
	for i := range got {
		if d := got[i].Time.Sub(want[i].Time.Time); d < -time.Minute || d > time.Minute {
			return fmt.Sprintf("entry %d of %s, not %s", i, got[i].Time, want[i].Time)
		}
	}
	return ""
}

// filler makes up objects.
type filler struct{ *rand.Rand }

var words26 = []string{"a", "b", "c"}

// fill sets about as many fields of v as round says: none at zero.
func (f *filler) fill(v reflect.Value, depth, round int) {
	if depth > 9 {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		*p = metav1.NewTime(time.Unix(1700000000+f.Int64N(3), f.Int64N(1e9)))
		return
	case *metav1.MicroTime:
		*p = metav1.NewMicroTime(time.Unix(1700000000, f.Int64N(3)*1000))
		return
	case *resource.Quantity:
		*p = resource.MustParse([]string{"0", "1", "1500m"}[f.IntN(3)])
		return
	case *intstr.IntOrString:
		*p = []intstr.IntOrString{intstr.FromInt32(0), intstr.FromInt32(80), intstr.FromString("web")}[f.IntN(3)]
		return
	case *runtime.RawExtension:
		p.Raw = []byte([]string{`{"a":1}`, `{"b":{"c":[1]}}`}[f.IntN(2)])
		return
	case *metav1.TypeMeta, *[]metav1.ManagedFieldsEntry:
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(words26[f.IntN(len(words26))])
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(f.Int64N(3))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(f.Uint64N(3))
	case reflect.Struct:
		for i := range v.NumField() {
			if f.IntN(8) < round && v.Field(i).CanSet() {
				f.fill(v.Field(i), depth+1, round)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1, round)
	case reflect.Slice:
		n := f.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i), depth+1, round)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range f.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key, depth+1, round)
			f.fill(value, depth+1, round)
			v.SetMapIndex(key, value)
		}
	}
}

// alter changes one thing somewhere in v.
func (f *filler) alter(v reflect.Value) {
	for {
		switch {
		case v.Kind() == reflect.Struct && v.NumField() > 0 && leaves[v.Type()].text == nil:
			next := v.Field(f.IntN(v.NumField()))
			if !next.CanSet() || next.Type() == reflect.TypeFor[metav1.TypeMeta]() {
				return
			}
			v = next
			continue
		case v.Kind() == reflect.Pointer && !v.IsNil() && f.IntN(3) > 0:
			v = v.Elem()
			continue
		case v.Kind() == reflect.Slice && v.Len() > 0 && f.IntN(3) > 0:
			v = v.Index(f.IntN(v.Len()))
			continue
		}
		if f.IntN(4) == 0 {
			v.SetZero()
			return
		}
		f.fill(v, 3, 3)
		return
	}
}

// Conditions that differ only in their times are written alike.
func TestTimesAreNoShape(t *testing.T) {
	shapeAt := func(was, now int64) string {
		at := func(s int64, status corev1.ConditionStatus) *corev1.Pod {
			return &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Unix(s, 0)},
				{Type: corev1.PodInitialized, Status: "True", LastTransitionTime: metav1.Unix(100, 0)}}}}
		}
		s := &shaper{}
		s.whole(mouldOf(reflect.TypeFor[corev1.Pod]()), reflect.ValueOf(at(was, "False")).Elem(), false)
		s.whole(mouldOf(reflect.TypeFor[corev1.Pod]()), reflect.ValueOf(at(now, "True")).Elem(), false)
		return string(s.b)
	}
	if shapeAt(7, 8) != shapeAt(70, 80) {
		t.Error("other times, another shape")
	}
	for _, other := range []string{shapeAt(7, 7), shapeAt(100, 8), shapeAt(7, 100)} {
		if other == shapeAt(7, 8) {
			t.Error("equal times and different ones have one shape")
		}
	}
}

// Of two pods on two nodes, the second one's journey is known from the first's,
// though the addresses and the containers' names are others; what comes out is what
// the field manager says of it.
func TestAddressesAreNoShape(t *testing.T) {
	s := openServer(t)
	pods := kindNamed(s, "Pod")
	synctest.Test(t, func(t *testing.T) {
		for i, at := range []struct{ host, first, then string }{
			{"192.168.0.1", "10.0.0.7", "10.0.0.8"}, {"fd00::1", "fd00:1::7", "10.3.4.5"}, // as others
			{"192.168.0.1", "192.168.0.1", "10.0.0.9"}, // of the host's network
			{"192.168.0.1", `10"}`, "10.0.0.8"},        // no address
		} {
			empty := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}}
			known := []int{trackBoth(t, s, pods, writer{"", "ann"}, empty, nil)}
			old := empty
			for _, status := range []corev1.PodStatus{
				{PodIPs: []corev1.PodIP{{IP: at.first}}, HostIPs: []corev1.HostIP{{IP: at.host}}},
				{PodIPs: []corev1.PodIP{{IP: at.first}}, HostIPs: []corev1.HostIP{{IP: at.host}}, Phase: "Running"},
				{PodIPs: []corev1.PodIP{{IP: at.then}}, HostIPs: []corev1.HostIP{{IP: at.host}}, Phase: "Running"},
				{PodIPs: []corev1.PodIP{{IP: at.then}, {IP: "fd00::2"}}, HostIPs: []corev1.HostIP{{IP: at.host}}, Phase: "Running"},
				{PodIPs: []corev1.PodIP{{IP: "fd00::2"}}, HostIPs: []corev1.HostIP{{IP: at.host}}, Phase: "Failed"},
			} {
				next := old.DeepCopy()
				status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: at.then + string(status.Phase)}}
				next.Status = status
				next.SetManagedFields(nil)
				known = append(known, trackBoth(t, s, pods, writer{"status", "node"}, next, old))
				old = next
			}
			if want := []int{1, 1, 1, 1, 0, 0}; i == 1 && !slices.Equal(known, want) {
				t.Errorf("%s: known were %v, want %v", at.host, known, want)
			}
		}
	})
}

// Of two objects with owners, the second one's journey is known from the first's, though
// its owner is another; what comes out is what the field manager says of it.
func TestOwnersAreNoShape(t *testing.T) {
	s := openServer(t)
	leases := kindNamed(s, "Lease")
	node := func(uid, name string, more ...metav1.OwnerReference) []metav1.OwnerReference {
		return append([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID(uid)}}, more...)
	}
	synctest.Test(t, func(t *testing.T) {
		for i, uid := range []string{"a0-1", "bb-2", `c"}`} {
			old := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", OwnerReferences: node(uid, "n")}}
			known := []int{trackBoth(t, s, leases, writer{"", "ann"}, old, nil)}
			for _, step := range []struct {
				who    string
				owners []metav1.OwnerReference
			}{
				{"ann", node(uid, "n")}, // nothing of it
				{"bob", node(uid, "m")}, // what is in it
				{"ann", node(uid+"0", "m")},
				{"bob", node(uid, "m", node("d-3", "d")...)},
				{"ann", node("d-3", "d")},
				{"bob", nil},
			} {
				next := old.DeepCopy()
				next.OwnerReferences = step.owners
				next.Spec.LeaseTransitions = new(int32(len(known)))
				next.SetManagedFields(nil)
				known = append(known, trackBoth(t, s, leases, writer{"", step.who}, next, old))
				old = next
			}
			if want := []int{1, 1, 1, 1, 0, 0, 1}; i == 1 && !slices.Equal(known, want) {
				t.Errorf("known were %v, want %v", known, want)
			}
		}
	})
}

// Whoever sends back what a write in this process has answered with names the record that
// is stored: its times have no fractions, whether the manager made it or it was remembered.
func TestAnswersNameTheStoredRecord(t *testing.T) {
	l := openServer(t).Local(identity.Identity{Name: "agent"}, "agent")
	at := target.Of(coordinationv1.SchemeGroupVersion.WithResource("leases"), "a")
	for _, name := range []string{"made", "remembered"} {
		var obj runtime.Object = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &name}}
		for round := range 3 {
			var err error
			if round == 0 {
				obj, err = l.Create(t.Context(), at, obj, metav1.CreateOptions{})
			} else {
				next := obj.(*coordinationv1.Lease).DeepCopy()
				next.Spec.RenewTime = &metav1.MicroTime{Time: time.Unix(int64(round), 0)}
				obj, err = l.Update(t.Context(), at.Object(name), next, metav1.UpdateOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
			stored, err := l.Get(t.Context(), at.Object(name), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			answered, has := obj.(*coordinationv1.Lease).ManagedFields, stored.(*coordinationv1.Lease).ManagedFields
			if len(has) == 0 || !sameRecord(answered, has) {
				t.Errorf("%s, write %d: answered %v, stored %v", name, round, answered, has)
			}
		}
	}
}
