package resource

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/all"
)

// given are the kinds whose stored objects the cache may be given.
func givenKinds() (given []*kinds.Kind) {
	for _, k := range all.Kinds() {
		if k.Storage != "" && k.View == nil && k.Custom == nil && k.Strategy.Loaded == nil {
			given = append(given, k)
		}
	}
	return given
}

// example is upstream's published object of a kind, with every field filled; false when
// there is none.
func example(t *testing.T, dir string, k *kinds.Kind) (kinds.Object, bool) {
	t.Helper()
	name := cmp.Or(k.GVK.Group, "core") + "." + k.GVK.Version + "." + k.GVK.Kind + ".json"
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, false
	}
	obj := k.New()
	if err := json.Unmarshal(data, obj); err != nil {
		t.Fatal(err)
	}
	return obj, true
}

// What the cache is given of a write is, to the last bit, what decoding the written
// bytes gives: for every kind, with every field as it is in upstream's examples, missing,
// empty, and as no decoder would leave it. And what has been decoded is always given.
func TestSettled(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD")
	x := &settling{codec: newCodec(scheme.Scheme()), seen: map[reflect.Type]bool{}}
	examples := 0
	for _, k := range givenKinds() {
		obj, ok := example(t, dir, k)
		if ok {
			examples++
		} else {
			obj = k.New()
			obj.SetName("a")
		}
		t.Run(k.GVK.Kind, func(t *testing.T) {
			decoded := x.again(t, k, obj)
			if _, ok := settledCopy(decoded, false); !ok {
				t.Error("an object that has been decoded is not settled")
			}
			x.check(t, k, decoded, "decoded")
			x.vary(t, k, decoded, reflect.ValueOf(decoded).Elem(), "")
		})
	}
	t.Logf("%d examples, %d variants, of which %d settled", examples, x.tried, x.settled)
	if examples < 50 || x.settled < 1000 || x.tried-x.settled < 500 {
		t.Errorf("%d examples, %d of %d variants settled: this proves little", examples, x.settled, x.tried)
	}
}

type settling struct {
	codec          *codec
	tried, settled int
	seen           map[reflect.Type]bool // structs that have been looked into: rules are by type
}

// again is what decoding the stored form of obj gives.
func (x *settling) again(t *testing.T, k *kinds.Kind, obj kinds.Object) kinds.Object {
	t.Helper()
	data, err := x.codec.store(t.Context(), obj, k)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := x.codec.load(t.Context(), data, k)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// check compares what would be given of obj with what is decoded.
func (x *settling) check(t *testing.T, k *kinds.Kind, obj kinds.Object, how string) {
	t.Helper()
	x.tried++
	given, ok := settledCopy(obj, false)
	if !ok {
		return
	}
	x.settled++
	given.GetObjectKind().SetGroupVersionKind(k.GVK)
	given.SetResourceVersion("")
	if decoded := x.again(t, k, obj); !reflect.DeepEqual(given, decoded) {
		t.Errorf("%s: given\n%.2000v\ndecoded\n%.2000v", how, given, decoded)
	}
}

// vary tries every value in v in every way that variants knows.
func (x *settling) vary(t *testing.T, k *kinds.Kind, obj kinds.Object, v reflect.Value, path string) {
	t.Helper()
	was := reflect.New(v.Type()).Elem()
	was.Set(v)
	for i, other := range variants(v) {
		v.Set(other)
		if !encodable(x.codec, k, obj) {
			continue
		}
		x.check(t, k, obj, fmt.Sprintf("%s, variant %d", path, i))
	}
	v.Set(was)
	if _, ok := exact[v.Type()]; ok && v.Kind() == reflect.Struct && v.Type() != typeMeta {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if x.seen[v.Type()] {
			return
		}
		x.seen[v.Type()] = true
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && (path != "" || f.Type != typeMeta) {
				x.vary(t, k, obj, v.Field(i), path+"."+f.Name)
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			x.vary(t, k, obj, v.Elem(), path)
		}
	case reflect.Slice:
		if v.Len() > 0 && v.Type().Elem().Kind() != reflect.Uint8 {
			x.vary(t, k, obj, v.Index(0), path+"[0]")
		}
	case reflect.Map:
		x.varyMap(t, k, obj, v, path)
	}
}

func (x *settling) varyMap(t *testing.T, k *kinds.Kind, obj kinds.Object, v reflect.Value, path string) {
	t.Helper()
	for _, key := range v.MapKeys() {
		was, held := v.MapIndex(key), reflect.New(v.Type().Elem()).Elem()
		held.Set(was)
		for i, other := range variants(held) {
			v.SetMapIndex(key, other)
			if encodable(x.codec, k, obj) {
				x.check(t, k, obj, fmt.Sprintf("%s[%v], variant %d", path, key, i))
			}
		}
		v.SetMapIndex(key, was)
	}
}

func encodable(c *codec, k *kinds.Kind, obj kinds.Object) bool {
	data, err := c.encodeProto(obj)
	if err != nil {
		return false
	}
	return c.read(data, k, k.New()) == nil
}

// variants are other values of a type, most of which no decoder makes.
func variants(v reflect.Value) (others []reflect.Value) {
	of := func(all ...any) {
		for _, one := range all {
			others = append(others, reflect.ValueOf(one).Convert(v.Type()))
		}
	}
	others = append(others, reflect.Zero(v.Type()))
	odd := time.Date(2026, 1, 2, 3, 4, 5, 678912345, time.UTC)
	switch v.Interface().(type) {
	case metav1.Time:
		of(metav1.Now(), metav1.NewTime(odd), metav1.NewTime(odd.Truncate(time.Second)), metav1.NewTime(odd.Truncate(time.Second).Local()),
			metav1.NewTime(time.Time{}.Local()), metav1.NewTime(time.Unix(-1, 0)), metav1.NewTime(odd.Truncate(time.Second).In(time.FixedZone("here", 3600))))
		return others
	case metav1.MicroTime:
		of(metav1.NowMicro(), metav1.NewMicroTime(odd), metav1.NewMicroTime(odd.Truncate(time.Microsecond).Local()), metav1.NewMicroTime(time.Unix(-1, 500).Local()))
		return others
	case resource.Quantity:
		for _, text := range []string{"0.5", "0.5Ki", "1024", "1Ki", "1024Mi", "1000", "1k", "100m", "1e3", "0Ki", "-5", "123456789012345678901234567890", "1.0000000001"} {
			of(resource.MustParse(text))
		}
		of(*resource.NewQuantity(1024, resource.BinarySI), *resource.NewMilliQuantity(1500, resource.DecimalSI), *resource.NewQuantity(math.MaxInt64, resource.DecimalExponent))
		return others
	case metav1.TypeMeta:
		of(metav1.TypeMeta{Kind: "Pod"})
		return others
	case runtime.RawExtension:
		of(runtime.RawExtension{Object: &corev1.Pod{}}, runtime.RawExtension{Raw: []byte{}}, runtime.RawExtension{Raw: []byte(`{"a":1}`), Object: &corev1.Pod{}})
		return others
	}
	switch v.Kind() {
	case reflect.String:
		of("", "x", "\xff", "0")
	case reflect.Bool:
		of(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		of(-1, 7)
	case reflect.Pointer:
		others = append(others, reflect.New(v.Type().Elem()))
	case reflect.Slice:
		others = append(others, reflect.MakeSlice(v.Type(), 0, 1), reflect.MakeSlice(v.Type(), 1, 1), reflect.MakeSlice(v.Type(), 2, 2))
	case reflect.Map:
		some := reflect.MakeMap(v.Type())
		some.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		others = append(others, reflect.MakeMap(v.Type()), some)
	}
	return others
}

// Which kinds are decoded as always, and why.
func TestKindsThatAreNotGiven(t *testing.T) {
	var not []string
	for _, k := range all.Kinds() {
		if k.Storage != "" && k.View == nil && (k.Custom != nil || k.Strategy.Loaded != nil) {
			not = append(not, k.GVK.Kind)
		}
	}
	// A StatefulSet's claims have a kind, which is not stored: Strategy.Loaded.
	if want := []string{"StatefulSet"}; !slices.Equal(not, want) {
		t.Errorf("%v are not given, wanted %v", not, want)
	}
}

// A watcher is shown what the writer wrote, and no decoding of it, by creates, updates,
// patches and writes of the status; and what it is shown is what is stored, of bindings
// too.
func TestWatchersAreGivenWhatIsWritten(t *testing.T) {
	s := openServer(t)
	l := s.Local(identity.Identity{Name: "alice"}, "test")
	at := target.Of(podsResource, "a")
	events, err := l.Watch(t.Context(), at, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	given := map[string]bool{}
	// The collector may take what is given before the watcher has got it; then it is
	// decoded. So it is tried until it has been given once.
	const rounds = 1000
	for i := 0; i < rounds && len(given) < 4; i++ {
		name := fmt.Sprintf("p%d", i)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		one := at.Object(name)
		for _, step := range []struct {
			name string
			do   func() (runtime.Object, error)
		}{
			{"create", func() (runtime.Object, error) { return l.Create(t.Context(), at, pod, metav1.CreateOptions{}) }},
			{"update", func() (runtime.Object, error) {
				next := pod.DeepCopy()
				next.Labels = map[string]string{"step": "update"}
				return l.Update(t.Context(), one, next, metav1.UpdateOptions{})
			}},
			{"patch", func() (runtime.Object, error) {
				return l.Patch(t.Context(), one, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"step":"patch"}}}`), metav1.PatchOptions{})
			}},
			{"bind", func() (runtime.Object, error) {
				b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Target: corev1.ObjectReference{Name: "n"}}
				return l.Create(t.Context(), one.Sub("binding"), b, metav1.CreateOptions{})
			}},
			{"status", func() (runtime.Object, error) {
				return l.Patch(t.Context(), one.Sub("status"), types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{})
			}},
		} {
			wrote, err := step.do()
			if err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			shown := (<-events.ResultChan()).Object.(*corev1.Pod)
			stored, _, err := s.cfg.Store.Get(t.Context(), s.cfg.Prefix+"/pods/a/"+name)
			if err != nil {
				t.Fatal(err)
			}
			k := s.table.Load().byResource[podsResource].kind
			decoded, err := s.codec.load(t.Context(), stored.Value, k)
			if err != nil {
				t.Fatal(err)
			}
			setRevision(decoded, stored.Revision)
			if !reflect.DeepEqual(shown, decoded) {
				t.Fatalf("%s: shown\n%+v\nstored\n%+v", step.name, shown, decoded)
			}
			if w, ok := wrote.(*corev1.Pod); ok && &w.Spec.Containers[0] == &shown.Spec.Containers[0] {
				given[step.name] = true // a binding's answer is no pod: that cannot be seen
			}
		}
	}
	if len(given) < 4 {
		t.Errorf("in %d rounds only %v were given", rounds, slices.Sorted(maps.Keys(given)))
	}
}

// What it costs to see that a pod need not be decoded, and what decoding it would.
func BenchmarkSettled(b *testing.B) {
	c := newCodec(scheme.Scheme())
	k := all.Kinds()[slices.IndexFunc(all.Kinds(), func(k *kinds.Kind) bool { return k.GVK.Kind == "Pod" })]
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", Labels: map[string]string{"a": "b"}, CreationTimestamp: metav1.Now(),
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", Time: new(metav1.Now()), FieldsV1: &metav1.FieldsV1{}}}}}
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		"cpu": resource.MustParse("100m"), "memory": resource.MustParse("500Mi")}}}}
	k.Strategy.Default(pod)
	b.Run("settled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := settledCopy(pod, false); !ok {
				b.Fatal("not settled")
			}
		}
	})
	data, err := c.store(b.Context(), pod, k)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decoded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.load(b.Context(), data, k); err != nil {
				b.Fatal(err)
			}
		}
	})
}
