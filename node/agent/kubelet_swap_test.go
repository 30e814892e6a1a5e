package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sampan-dev/sampan/node/agent/settings"
)

// A container that is out of memory ends as a whole where the kernel can do that,
// unless the configuration asks for single processes.
func TestKillsTogether(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(v2, "cgroup.controllers"), []byte("cpu memory\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for _, test := range []struct {
		mount  string
		single *bool
		want   bool
	}{{v1, nil, false}, {v1, &no, false}, {v2, nil, true}, {v2, &no, true}, {v2, &yes, false}} {
		k := &settings.Kubelet{}
		k.SingleProcessOOMKill = test.single
		cfg := Config{CgroupMount: test.mount, Kubelet: k}
		if got := cfg.killsTogether(); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
