package pressure

import (
	"os"
	"path/filepath"
	"testing"
)

// A table of connections that is nearly full is told of once, and again when it has been
// emptier meanwhile.
func TestCrowd(t *testing.T) {
	var c Crowd
	for i, step := range []struct {
		now  int64
		tell bool
	}{{0, false}, {899, false}, {900, true}, {1000, false}, {800, false}, {950, false}, {699, false}, {901, true}} {
		if got := c.Judge(Flows{Now: step.now, Max: 1000}); got != step.tell {
			t.Errorf("step %d, %d of 1000: %v", i, step.now, got)
		}
	}
}

// The numbers are the kernel's files, which may be missing.
func TestFlows(t *testing.T) {
	m := Machine{Proc: t.TempDir()}
	if _, ok := m.Flows(); ok {
		t.Error("connections where none are tracked")
	}
	dir := filepath.Join(m.Proc, "sys", "net", "netfilter")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"nf_conntrack_count": "12\n", "nf_conntrack_max": "300\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := m.Flows(); !ok || got != (Flows{12, 300}) {
		t.Errorf("read %v, %v", got, ok)
	}
}
