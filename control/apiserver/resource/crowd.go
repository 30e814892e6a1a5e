package resource

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// What a body may have in it, beyond how long it may be. Two bytes of a body can
// be a value that takes a kilobyte decoded, and one level more of nesting; and who
// owns the fields of an object is found out in a time that grows with the square
// of its largest map. Nothing that people write comes near these limits. Upstream
// has only the last one, and not for protobuf.
const (
	// maxValues bounds what is decoded into Go types: items of lists, entries of
	// maps, fields.
	maxValues = 100_000
	// maxWidth is the largest map, or list of maps, whose owners are tracked.
	maxWidth = 10_000
	// maxDepth is how deep values may be nested.
	maxDepth = 10_000
	// crowdFrom is the size in bytes below which none of this can matter.
	crowdFrom = 16 << 10
)

// crowd is what is in a body, roughly and never too few.
type crowd struct {
	values, width, depth int
}

func (c *crowd) saw(width int) { c.width = max(c.width, width) }

// crowdOf counts a body of m for an object of type t. A body that is malformed is
// counted up to there: its decoder will say so.
func crowdOf(data []byte, m mediaType, t reflect.Type) crowd {
	var c crowd
	switch {
	case len(data) < crowdFrom:
	case m == mediaProtobuf:
		c.protobuf(rawOf(data), t, 0)
	case m == mediaCBOR:
		c.cbor(data)
	case m == mediaYAML && !manyIn(data):
	case m == mediaYAML && json.Valid(data): // as kubectl applies it
		c.json(data)
	case m == mediaYAML:
		// Aliases are followed here, within the bounds of the YAML library.
		if converted, err := yaml.YAMLToJSON(data); err == nil {
			c.json(converted)
		}
	default:
		c.json(data)
	}
	return c
}

// manyIn says whether YAML may have as many values as matter, by the characters
// without which there are none.
func manyIn(data []byte) bool {
	n := 0
	for _, b := range data {
		switch b {
		case '\n', ',', '[', '{', ':', '*':
			n++
		}
	}
	return n > maxWidth
}

// json counts values outside of strings.
func (c *crowd) json(data []byte) {
	type open struct {
		object bool
		width  int
	}
	var stack []open
	for i := 0; i < len(data); i++ {
		switch b := data[i]; b {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if n := len(stack); n > 0 && b == '{' && !stack[n-1].object {
				stack[n-1].width++
			}
			c.values++
			stack = append(stack, open{object: b == '{'})
			if c.depth = max(c.depth, len(stack)); c.depth > maxDepth {
				return
			}
		case ':', ',':
			n := len(stack)
			if n == 0 {
				return
			}
			if b == ':' {
				stack[n-1].width++
			}
			if stack[n-1].object == (b == ':') {
				c.values++
			}
		case '}', ']':
			n := len(stack)
			if n == 0 {
				return
			}
			c.saw(stack[n-1].width)
			stack = stack[:n-1]
		}
	}
}

// cbor counts the heads of values.
func (c *crowd) cbor(data []byte) {
	const (
		byteString, text, array, mapping, tag = 2, 3, 4, 5, 6
		indefinite, stop                      = 31, 0xff
	)
	var stack []uint64 // how many values are to come in each that is open
	for len(data) > 0 && c.depth <= maxDepth {
		first := data[0]
		major, info := first>>5, first&31
		n, rest, ok := cborNumber(data[1:], info)
		if !ok {
			return
		}
		data = rest
		c.values++
		opens := major == array || major == mapping || info == indefinite && first != stop
		switch {
		case opens:
			if major == mapping || major == array && len(data) > 0 && data[0]>>5 == mapping {
				c.saw(int(min(n, uint64(len(data)))))
			}
			if major == mapping {
				n *= 2
			}
			if info == indefinite {
				n = math.MaxUint64
				if major == array || major == mapping {
					c.saw(len(data) / 2) // whatever it turns out to be
				}
			}
			stack = append(stack, max(n+1, n))
			c.depth = max(c.depth, len(stack))
		case major == byteString || major == text:
			if n > uint64(len(data)) {
				return
			}
			data = data[n:]
		case major == tag:
			continue
		case first == stop && len(stack) > 0:
			stack[len(stack)-1] = 1
		}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if *top--; *top > 0 {
				break
			}
			stack = stack[:len(stack)-1]
		}
	}
}

// cborNumber reads what follows the first byte of a head.
func cborNumber(data []byte, info byte) (n uint64, rest []byte, ok bool) {
	if info < 24 || info == 31 {
		return uint64(info), data, true
	}
	size := 1 << (info - 24)
	if info > 27 || len(data) < size {
		return 0, nil, false
	}
	for _, b := range data[:size] {
		n = n<<8 | uint64(b)
	}
	return n, data[size:], true
}

// rawOf is the message in upstream's envelope; nil where there is none.
func rawOf(data []byte) []byte {
	var envelope runtime.Unknown
	if len(data) < len(protoPrefix) || envelope.Unmarshal(data[len(protoPrefix):]) != nil {
		return nil
	}
	return envelope.Raw
}

// protobuf counts the messages in one of type t: which fields are messages only
// the Go type knows.
func (c *crowd) protobuf(data []byte, t reflect.Type, depth int) {
	c.depth = max(c.depth, depth)
	if depth > maxDepth || c.values > maxValues {
		return
	}
	known := messagesOf(t)
	widths := map[uint64]int{}
	for len(data) > 0 {
		key, n := binary.Uvarint(data)
		if n <= 0 {
			return
		}
		data = data[n:]
		size, n := 0, 0
		switch key & 7 {
		case 0:
			_, n = binary.Uvarint(data)
		case 1:
			n = 8
		case 5:
			n = 4
		case 2:
			var long uint64
			if long, n = binary.Uvarint(data); n > 0 && long > uint64(len(data)-n) {
				return
			}
			size = int(long)
		case 3, 4:
			continue // a group: what is in it is counted as if it were here
		}
		if n <= 0 || n > len(data) {
			return
		}
		inner := known[key>>3]
		if inner != nil && key&7 == 2 {
			c.protobuf(data[n:n+size], inner, depth+1)
		}
		data = data[n+size:]
		widths[key>>3]++
		c.saw(widths[key>>3])
		if inner != nil || widths[key>>3] > 1 { // an empty string that is sent costs nothing
			c.values++
		}
	}
}

// messages are the fields of Go types that are messages of protobuf, by number.
var messages sync.Map // reflect.Type → map[uint64]reflect.Type

func messagesOf(t reflect.Type) map[uint64]reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if found, ok := messages.Load(t); ok {
		return found.(map[uint64]reflect.Type)
	}
	fields := map[uint64]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		parts := strings.Split(f.Tag.Get("protobuf"), ",")
		if len(parts) < 2 {
			continue
		}
		number, err := strconv.ParseUint(parts[1], 10, 32)
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if err == nil && inner.Kind() == reflect.Struct {
			fields[number] = inner
		}
	}
	messages.Store(t, fields)
	return fields
}

// count refuses a body that has too much in it, and notes what has too much for
// its owners to be tracked.
func (x *exchange) count(data []byte, m mediaType, into runtime.Object) error {
	c := crowdOf(data, m, reflect.TypeOf(into))
	_, untyped := into.(runtime.Unstructured)
	switch {
	case c.depth > maxDepth && m == mediaProtobuf:
		return apierrors.NewBadRequest(fmt.Sprintf("exceeded max depth %d", maxDepth))
	case c.values > maxValues && !untyped:
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d values", maxValues))
	}
	x.req.wide = c.width > maxWidth
	if x.req.wide && x.req.Verb == verbPatch && x.call.applies() {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d entries of a map", maxWidth))
	}
	return nil
}

// countPatch is count for a patch.
func (x *exchange) countPatch(data []byte) error {
	m := mediaJSON
	switch x.req.PatchType {
	case types.ApplyYAMLPatchType:
		m = mediaYAML
	case types.ApplyCBORPatchType:
		m = mediaCBOR
	}
	return x.count(data, m, x.call.newBody())
}

// maxFaults is how many faults of an object are told. Upstream tells all, in a time
// that grows with the square of their number.
const maxFaults = 1000

// invalid is 422 with what is wrong with an object.
func invalid(gk schema.GroupKind, name string, faults field.ErrorList) error {
	if n := len(faults); n > maxFaults {
		faults = append(faults[:maxFaults:maxFaults], field.TooMany(field.NewPath("faults"), n, maxFaults))
	}
	return apierrors.NewInvalid(gk, name, faults)
}
