package job

import (
	"reflect"
	"testing"
)

func TestIndexes(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
		total int
	}{
		{"", 5, "", 0},
		{"1,3-5,7", 10, "1,3-5,7", 5},
		{"0,1", 10, "0,1", 2},
		{"0,1,2", 10, "0-2", 3},
		{"1,3-5,7", 5, "1,3,4", 3},
		{"9", 5, "", 0},
		{"x,2,4-3,-1", 9, "2", 1},
	} {
		got := parseIndexes(c.text, c.limit)
		if got.String() != c.want || got.total() != c.total {
			t.Errorf("%q below %d: %q, %d; want %q, %d", c.text, c.limit, got, got.total(), c.want, c.total)
		}
	}
	x := parseIndexes("1,3-5", 10)
	if got := x.with(2, 7).String(); got != "1-5,7" {
		t.Errorf("with 2 and 7: %q", got)
	}
	if got := x.missing(4, 10); !reflect.DeepEqual(got, []int{0, 2, 6, 7}) {
		t.Errorf("missing %v", got)
	}
	if got := x.missing(4, 3); !reflect.DeepEqual(got, []int{0, 2}) {
		t.Errorf("missing below 3: %v", got)
	}
	if n := x.common(parseIndexes("0-3,5-9", 10)); n != 3 {
		t.Errorf("%d in common, want 3", n)
	}
	for i, want := range []bool{false, true, false, true, true, true, false} {
		if x.has(i) != want {
			t.Errorf("has %d: %v", i, !want)
		}
	}
}
