package plan

import (
	"reflect"
	"testing"
)

func TestTerse(t *testing.T) {
	asked := Request{Version: Version, Op: ExecIn, ID: "c1", Brief: true, List: true, Terse: true, Child: &Child{PIDNS: "/proc/7/ns/pid", Cgroup: "/sys/fs/cgroup/a"}}
	var heard Request
	roundTrip(t, asked, &heard)
	if !reflect.DeepEqual(asked, heard) {
		t.Errorf("asked %+v, heard %+v", asked, heard)
	}
	for _, said := range []Answer{
		{Version: Version, Terse: true, Exit: &Exit{Code: 0}},
		{Version: Version, Terse: true, Exit: &Exit{Code: 137}},
		{Version: Version, Terse: true, Error: "exec x: no such file", Code: 127},
		{Version: Version, Terse: true, Stage: true, Error: "a call failed"},
	} {
		var got Answer
		roundTrip(t, said, &got)
		if !reflect.DeepEqual(said, got) {
			t.Errorf("said %+v, got %+v", said, got)
		}
	}
}

// roundTrip also cuts the message off everywhere: no part of one is another.
func roundTrip(t *testing.T, in, out any) {
	t.Helper()
	b, err := Encode(in)
	if err != nil || b[0] != terseMark {
		t.Fatalf("%+v became %q: %v", in, b, err)
	}
	for n := 1; n < len(b); n++ {
		if err := Decode(b[:n], out); err == nil {
			t.Errorf("%d bytes of %d were taken: %+v", n, len(b), out)
		}
	}
	if err := Decode(append(b[:len(b):len(b)], 0), out); err == nil {
		t.Errorf("a byte too many was taken: %+v", out)
	}
	if err := Decode(b, out); err != nil {
		t.Error(err)
	}
	if err := Decode(b, &Report{}); err == nil {
		t.Error("a report is never terse")
	}
}

// Whoever has not asked for it gets JSON.
func TestTerseIsAskedFor(t *testing.T) {
	for _, v := range []any{Request{Op: Hello}, Request{Op: ExecIn, Brief: true, List: true, Child: &Child{}}, Answer{Exit: &Exit{}}} {
		if b, err := Encode(v); err != nil || b[0] != '{' {
			t.Errorf("%+v became %q: %v", v, b, err)
		}
	}
}
