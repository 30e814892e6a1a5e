package container

import (
	"encoding/json"
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestCheckSpec is what create refuses of a config.json before it makes anything: each is
// said over an ordinary one.
func TestCheckSpec(t *testing.T) {
	for _, c := range []struct{ said, want string }{
		{`{}`, "<nil>"},
		{`{"ociVersion":"1.0.2-dev"}`, "<nil>"},
		{`{"ociVersion":"1.9.0+x.y"}`, "<nil>"},
		{`{"ociVersion":""}`, `ociVersion "" is not a semantic version`},
		{`{"ociVersion":"1.0"}`, `ociVersion "1.0" is not a semantic version`},
		{`{"ociVersion":"2.0.0"}`, `ociVersion "2.0.0" is not supported: this is an implementation of ` + specs.Version},
		{`{"linux":{"namespaces":[{"type":"pid"},{"type":"uts"},{"type":"pid","path":"/a"}]}}`, `namespace "pid" is there twice`},
		{`{"linux":{"namespaces":[{"type":"uts"},{"type":"pid","path":"a"}]}}`, `namespace "pid": path "a" must be absolute`},
		{`{"hostname":"h","linux":{"namespaces":[]}}`, "a hostname or domainname needs a UTS namespace"},
		{`{"hostname":"","domainname":"d","linux":{"namespaces":[]}}`, "a hostname or domainname needs a UTS namespace"},
		{`{"process":{"cwd":""}}`, `cwd "" must be absolute`},
		{`{"process":{"cwd":"tmp"}}`, `cwd "tmp" must be absolute`},
		{`{"process":{"rlimits":[{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}]}}`, `rlimit "RLIMIT_CPU" is there twice`},
		{`{"process":{"oomScoreAdj":-1001}}`, "oomScoreAdj -1001: must be between -1000 and 1000"},
		{`{"process":{"oomScoreAdj":1000}}`, "<nil>"},
		{`{"process":{"execCPUAffinity":{"initial":"x"}}}`, `CPU affinity: initial: "x" is not a list of processors below 8192`},
		{`{"hooks":{"poststop":[{"path":"/a","timeout":1},{"path":"a"}]}}`, `hook "a": path must be absolute`},
		{`{"hooks":{"prestart":[{"path":"/a","timeout":0}]}}`, `hook "/a": timeout 0 must be greater than zero`},
		{`{"linux":{"devices":[{"path":"/dev/a","type":"c"},{"path":"/dev/x","type":"x"}]}}`, `device "/dev/x": type "x" is not known`},
		{`{"annotations":{"":"a"}}`, "an annotation has no key"},
		{`{"linux":{"intelRdt":{}}}`, "intelRdt is not supported"},
	} {
		s := DefaultSpec()
		if err := json.Unmarshal([]byte(c.said), s); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(checkSpec(s)); got != c.want {
			t.Errorf("%s: %s, want %s", c.said, got, c.want)
		}
	}
}
