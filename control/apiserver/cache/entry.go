package cache

import (
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Entry is one object as one revision left it. It is immutable: whatever its
// methods return is shared by all callers and must not be changed. All methods
// may be called concurrently.
type Entry struct {
	cfg      *Config
	key      string
	raw      []byte
	revision int64
	// hot entries are in the window: their encodings are kept for the watchers
	// to come. Those of others live as long as somebody holds them.
	hot atomic.Bool

	selectable atomic.Pointer[selectable]

	decoding sync.Mutex // guards object
	object   weakObject

	encoding sync.Mutex // guards forms; may be held when decoding is taken
	forms    []form
}

// selectable is what selectors look at; kept so that a watch with a selector
// need not decode what it does not want.
type selectable struct {
	labels labels.Set
	fields fields.Set
	// object is kept, for kinds whose objects are dear to decode; else nil.
	object runtime.Object
}

// form is one encoding of an entry.
type form struct {
	name string
	kept []byte // nil unless the entry is hot
	weak weakBytes
	// stamp is what else it depends on: see EncodedAt.
	stamp int64
}

// Key is "namespace/name", or "name" for kinds that have no namespace.
func (e *Entry) Key() string { return e.key }

// Revision is that of the write which left this state, or, in an event that says
// the object went away, that of its going.
func (e *Entry) Revision() int64 { return e.revision }

// Raw is the stored bytes.
func (e *Entry) Raw() []byte { return e.raw }

// Object is the decoded object with its resourceVersion set, or nil when the
// stored bytes cannot be decoded (Decode tells why). Everybody gets the same
// pointer as long as anybody holds it: it is READ-ONLY.
func (e *Entry) Object() runtime.Object {
	obj, err := e.Decode()
	if err != nil {
		return nil
	}
	return obj
}

// Decode is Object with the reason when there is none.
func (e *Entry) Decode() (runtime.Object, error) {
	e.decoding.Lock()
	defer e.decoding.Unlock()
	if obj := e.object.get(); obj != nil {
		return obj, nil
	}
	obj, err := e.decode()
	if err != nil {
		return nil, fmt.Errorf("decode %q at revision %d: %w", e.cfg.Prefix+e.key, e.revision, err)
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("decode %q at revision %d: %w", e.cfg.Prefix+e.key, e.revision, err)
	}
	if e.revision != 0 {
		accessor.SetResourceVersion(strconv.FormatInt(e.revision, 10))
	}
	e.object = weakly(obj)
	return obj, nil
}

// given makes obj, nil for none, the object of an entry that nobody else has yet. It
// lives as long as somebody asks for it.
func (e *Entry) given(obj runtime.Object) {
	if obj == nil {
		return
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return // Decode tells why
	}
	accessor.SetResourceVersion(strconv.FormatInt(e.revision, 10))
	e.object = weakly(obj)
}

func (e *Entry) decode() (runtime.Object, error) {
	plain, err := e.open()
	if err != nil {
		return nil, err
	}
	return e.cfg.Decode(plain)
}

// open gives the stored bytes as they were before they were sealed.
func (e *Entry) open() ([]byte, error) {
	if e.cfg.Open == nil {
		return e.raw, nil
	}
	return e.cfg.Open(e.cfg.Prefix+e.key, e.raw)
}

// Labels are the object's labels; none when it cannot be decoded.
func (e *Entry) Labels() labels.Set { return e.selected().labels }

// Fields are the object's fields that selectors can ask for; none when it cannot
// be decoded.
func (e *Entry) Fields() fields.Set { return e.selected().fields }

func (e *Entry) selected() *selectable {
	if have := e.selectable.Load(); have != nil {
		return have
	}
	obj, err := e.Decode()
	if err != nil {
		return new(selectable) // not remembered: it may be decoded another time
	}
	made := e.looked(obj)
	e.selectable.CompareAndSwap(nil, made)
	return made
}

// looked is what selectors see of obj.
func (e *Entry) looked(obj runtime.Object) *selectable {
	made := new(selectable)
	if accessor, err := meta.Accessor(obj); err == nil {
		made.labels = accessor.GetLabels()
	}
	if e.cfg.Fields != nil {
		made.fields = e.cfg.Fields(obj)
	}
	return made
}

// Encoded is the encoding of the object named form. It is built by the first who
// asks and shared with all who ask while it is known: always while the entry is
// in the window, else as long as somebody holds it. build must not change the
// object, nor call Encoded of the same entry.
func (e *Entry) Encoded(name string, build func(runtime.Object) ([]byte, error)) ([]byte, error) {
	return e.EncodedAt(name, 0, build)
}

// EncodedAt is Encoded for what does not depend on the object alone: one that was
// built for another stamp is not given to anybody, and forgotten.
func (e *Entry) EncodedAt(name string, stamp int64, build func(runtime.Object) ([]byte, error)) ([]byte, error) {
	e.encoding.Lock()
	defer e.encoding.Unlock()
	place := -1
	for i := range e.forms {
		if e.forms[i].name != name {
			continue
		}
		if data := e.forms[i].weak.get(); data != nil && e.forms[i].stamp == stamp {
			return data, nil
		}
		place = i
	}
	obj, err := e.Decode()
	if err != nil {
		return nil, err
	}
	data, err := build(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %q as %s: %w", e.cfg.Prefix+e.key, name, err)
	}
	if place < 0 {
		place = len(e.forms)
		e.forms = append(e.forms, form{name: name})
	}
	e.forms[place].weak, e.forms[place].stamp = weaklyBytes(data), stamp
	if e.hot.Load() {
		e.forms[place].kept = data
	}
	return data, nil
}

// cool lets go of the encodings.
func (e *Entry) cool() {
	e.hot.Store(false)
	e.encoding.Lock()
	defer e.encoding.Unlock()
	for i := range e.forms {
		e.forms[i].kept = nil
	}
}

// weakObject is a weak pointer to what an interface value points to. Package
// weak wants to know the type at compile time; an object's is known only when
// it has been decoded, so it is remembered beside an untyped weak pointer.
type weakObject struct {
	kind    reflect.Type // what is pointed to
	pointer weak.Pointer[byte]
}

func weakly(obj runtime.Object) weakObject {
	value := reflect.ValueOf(obj)
	if value.Kind() != reflect.Pointer {
		return weakObject{} // never remembered: decoded anew each time
	}
	return weakObject{kind: value.Type().Elem(), pointer: weak.Make((*byte)(value.UnsafePointer()))}
}

func (w weakObject) get() runtime.Object {
	if w.kind == nil {
		return nil
	}
	pointer := w.pointer.Value()
	if pointer == nil {
		return nil
	}
	return reflect.NewAt(w.kind, unsafe.Pointer(pointer)).Interface().(runtime.Object)
}

// weakBytes is a weak pointer to a slice.
type weakBytes struct {
	start weak.Pointer[byte]
	len   int
}

func weaklyBytes(data []byte) weakBytes {
	if len(data) == 0 {
		return weakBytes{}
	}
	return weakBytes{start: weak.Make(unsafe.SliceData(data)), len: len(data)}
}

func (w weakBytes) get() []byte {
	start := w.start.Value()
	if start == nil {
		return nil
	}
	return unsafe.Slice(start, w.len)
}
