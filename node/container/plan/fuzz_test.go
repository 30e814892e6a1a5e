package plan

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// FuzzMessage: what either side of the keeper's socket hears, as JSON or tersely, is a
// message or an error. A terse one has one form, and says the same when it is said again.
func FuzzMessage(f *testing.F) {
	child := &Child{PIDNS: "/proc/7/ns/pid", Cgroup: "/sys/fs/cgroup/a"}
	for _, v := range []any{
		Request{Version: Version, Op: ExecIn, ID: "c1", Brief: true, List: true, Terse: true, Child: child}, Request{Version: Version, Op: Watch},
		Answer{Version: Version, Terse: true, Exit: &Exit{Code: -1}}, Answer{Version: Version, Terse: true, Error: "no such file", Code: 127, Stage: true},
		Answer{Version: Version, Done: true, Level: Level, Exit: &Exit{ID: "c", Code: 3}}, Report{Ready: true, Notes: []string{"one"}},
	} {
		b, err := Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(append([]byte(`{"Numbers":true,"Code":126}`), make([]byte, ReportNumbers)...))
	f.Add([]byte{terseMark, terseError, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxMessage {
			return // it is not read at all
		}
		frugal.Run(t, len(b), func() {
			var request, again Request
			if err := Decode(b, &request); err == nil && request.Terse {
				same(t, b, request, &again)
			}
			var answer, second Answer
			if err := Decode(b, &answer); err == nil && answer.Terse {
				same(t, b, answer, &second)
			}
			_ = Decode(b, &Report{})
		})
	})
}

// same says a terse message again. A number may have been written longer than need be,
// and flags that nobody knows are not said again.
func same(t *testing.T, b []byte, said, heard any) {
	t.Helper()
	again, err := Encode(reflect.ValueOf(said).Interface())
	if err != nil || again[0] != terseMark || len(again) > len(b) {
		t.Fatalf("%q is %+v, which becomes %q: %v", b, said, again, err)
	}
	if err := Decode(again, heard); err != nil || !reflect.DeepEqual(said, reflect.ValueOf(heard).Elem().Interface()) {
		t.Fatalf("%q is %+v, and said again %q: %+v, %v", b, said, again, heard, err)
	}
	if twice, err := Encode(reflect.ValueOf(heard).Elem().Interface()); err != nil || !bytes.Equal(again, twice) {
		t.Fatalf("%q becomes %q, and then %q: %v", b, again, twice, err)
	}
}
