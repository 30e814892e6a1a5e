package cgroup

import (
	"fmt"
	"testing"
)

// TestBelow is where groups below another are, with both versions.
func TestBelow(t *testing.T) {
	v1 := map[string]string{"cpu": "/c/g", "cpuacct": "/c/g", "memory": "/m/g", "": "/u/g"}
	v2 := map[string]string{"": "/u/g"}
	for _, c := range []struct {
		paths map[string]string
		where []string
		want  string
	}{
		{v1, nil, "map[cpu:/c/g cpuacct:/c/g memory:/m/g] <nil>"},
		{v1, []string{"/"}, "map[cpu:/c/g cpuacct:/c/g memory:/m/g] <nil>"},
		{v1, []string{"a/b"}, "map[cpu:/c/g/a/b cpuacct:/c/g/a/b memory:/m/g/a/b] <nil>"},
		{v1, []string{"memory:m", "cpu,cpuacct:c"}, "map[cpu:/c/g/c cpuacct:/c/g/c memory:/m/g/m] <nil>"},
		{v1, []string{"what:a"}, `map[] unknown controller "what" in "what:a"`},
		{v1, []string{":a"}, `map[] unknown controller "" in ":a"`},
		{v1, []string{".."}, `map[] bad sub cgroup path: ".."`},
		{v1, []string{"memory:a/../../b"}, `map[] bad sub cgroup path: "memory:a/../../b"`},
		{v2, []string{"/a"}, "map[:/u/g/a] <nil>"},
		{v2, []string{"a/.."}, "map[:/u/g] <nil>"},
	} {
		got, err := below(c.paths, c.where)
		if text := fmt.Sprint(got, " ", err); text != c.want {
			t.Errorf("%q: %s, want %s", c.where, text, c.want)
		}
	}
}
