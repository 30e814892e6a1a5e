package spec

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a pod asks for in annotations: limits of its processes, of which none gives it
// more of the machine than its cgroups do.
func TestAsked(t *testing.T) {
	const none = ^uint64(0)
	for text, want := range map[string]any{
		"nofile=1:2":                  []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}},
		"core=0,memlock=-1:-1,core=5": []specs.POSIXRlimit{{Type: "RLIMIT_MEMLOCK", Soft: none, Hard: none}, {Type: "RLIMIT_CORE", Soft: 5, Hard: 5}},
		"nofile=5:-1":                 []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 5, Hard: none}},
		"nice=5":                      "where NAME is one of",
		"rtprio=99":                   "where NAME is one of",
		"nofile":                      `"" is no limit`,
		"nofile=2:1":                  "above the hard one",
		"nofile=-2":                   `"-2" is no limit`,
		"nofile=1:2:3":                `"2:3" is no limit`,
	} {
		in := input()
		in.Sandbox = &rt.PodSandboxConfig{Annotations: map[string]string{UlimitsAnnotation: text}}
		got, err := Build(in)
		if reason, bad := want.(string); bad {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: %v, want %q", text, err, reason)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got.Process.Rlimits, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]int64{"": 100, "7": 7, "1000": 100, "0": -1, "-1": -1, "x": -1} {
		in := input() // 100 is the node's
		in.Sandbox = &rt.PodSandboxConfig{Annotations: map[string]string{PidsAnnotation: text}}
		got, err := Build(in)
		if want < 0 {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err != nil || *got.Linux.Resources.Pids.Limit != want {
			t.Errorf("%q: %v, want %d", text, err, want)
		}
	}
}
