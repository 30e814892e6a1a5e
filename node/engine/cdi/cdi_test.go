package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func empty() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Env: []string{"A=image", "B=image"}, User: specs.User{UID: 7}}, Linux: &specs.Linux{},
		Mounts: []specs.Mount{{Destination: "/opt/lib", Source: "/before"}, {Destination: "/proc"}}}
}

const gpu = `
cdiVersion: 0.8.0
kind: example.com/gpu
annotations: {made-by: test}
containerEdits:
  env: [ALL=1]
  hooks:
  - {hookName: createContainer, path: /bin/hook, args: [hook, ld], timeout: 3}
devices:
- name: zero
  annotations: {x: y}
  containerEdits:
    env: [A=cdi]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/zero, permissions: rw}
    mounts:
    - {hostPath: /usr/lib, containerPath: /opt/lib, options: [ro, bind]}
    additionalGids: [44, 0, 44]
- name: one
  containerEdits:
    deviceNodes:
    - {path: /dev/gpu1, type: c, major: 1, minor: 3, uid: 0}
- name: cache
  containerEdits: {intelRdt: {closID: x}}
- name: link
  containerEdits: {netDevices: [{hostInterfaceName: eth9, name: eth0}]}
- name: gone
  containerEdits: {deviceNodes: [{path: /dev/no-such-device}]}
`

func TestApply(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "gpu.yaml", gpu)
	d := Read([]string{filepath.Join(dir, "none"), dir})
	s := empty()
	if err := d.Apply(s, []string{"example.com/gpu=zero", "example.com/gpu=one"}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(s.Process.Env, " "), "A=cdi B=image ALL=1"; got != want {
		t.Errorf("env %q, want %q", got, want)
	}
	if !slices.Equal(s.Process.User.AdditionalGids, []uint32{44}) {
		t.Errorf("groups %v", s.Process.User.AdditionalGids)
	}
	if n := s.Linux.Devices; len(n) != 2 || n[0].Path != "/dev/gpu0" || n[0].Major != 1 || n[0].Minor != 5 || n[0].Type != "c" || *n[0].UID != 7 ||
		n[1].Minor != 3 || *n[1].UID != 0 {
		t.Errorf("devices %+v", n)
	}
	if r := s.Linux.Resources.Devices; len(r) != 2 || r[0].Access != "rw" || r[1].Access != "rwm" || !r[0].Allow {
		t.Errorf("rules %+v", r)
	}
	if len(s.Mounts) != 2 || s.Mounts[0].Destination != "/proc" || s.Mounts[1].Source != "/usr/lib" {
		t.Errorf("mounts %+v", s.Mounts)
	}
	if h := s.Hooks.CreateContainer; len(h) != 1 || h[0].Path != "/bin/hook" || *h[0].Timeout != 3 {
		t.Errorf("hooks %+v", h)
	}
	for name, want := range map[string]string{
		"cache": "Intel RDT are not supported", "link": `"eth9": network devices are not supported`, "gone": "/dev/no-such-device: no such file",
		"missing": "unresolvable CDI devices example.com/gpu=missing",
	} {
		if err := d.Apply(empty(), []string{"example.com/gpu=" + name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestPrecedenceAndConflicts(t *testing.T) {
	etc, run := t.TempDir(), t.TempDir()
	file := func(env string) string {
		return `{"cdiVersion":"1.0.0","kind":"v.io/c","devices":[{"name":"d","containerEdits":{"env":["` + env + `"]}}]}`
	}
	put(t, etc, "a.json", file("X=etc"))
	put(t, run, "a.json", file("X=run"))
	put(t, run, "other.txt", "not read")
	s := empty()
	if err := Read([]string{etc, run}).Apply(s, []string{"v.io/c=d"}); err != nil || !slices.Contains(s.Process.Env, "X=run") {
		t.Errorf("%v %v", err, s.Process.Env)
	}
	put(t, etc, "b.json", file("X=again"))
	if err := Read([]string{etc, run}).Apply(empty(), []string{"v.io/c=d"}); err != nil {
		t.Errorf("a conflict in a directory that another goes before: %v", err)
	}
	put(t, run, "b.json", file("X=again"))
	if err := Read([]string{etc, run}).Apply(empty(), []string{"v.io/c=d"}); err == nil || !strings.Contains(err.Error(), `conflicting device "v.io/c=d"`) {
		t.Errorf("a conflict: %v", err)
	}
}

// A file that makes no sense is told of by whoever misses a device, and hurts
// nobody else.
func TestBrokenFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "good.yaml", gpu)
	for name, text := range map[string]string{
		"torn":    `{"cdiVersion":`,
		"version": `{"cdiVersion":"9.9.9","kind":"v.io/c","devices":[{"name":"d"}]}`,
		"kind":    `{"cdiVersion":"0.8.0","kind":"nothing","devices":[{"name":"d"}]}`,
		"empty":   `{"cdiVersion":"0.8.0","kind":"v.io/c"}`,
		"twice":   `{"cdiVersion":"0.8.0","kind":"v.io/c","devices":[{"name":"d"},{"name":"d"}]}`,
		"env":     `{"cdiVersion":"0.8.0","kind":"v.io/c","devices":[{"name":"d","containerEdits":{"env":["=x"]}}]}`,
		"node":    `{"cdiVersion":"0.8.0","kind":"v.io/c","devices":[{"name":"d","containerEdits":{"deviceNodes":[{"path":"relative"}]}}]}`,
		"hook":    `{"cdiVersion":"0.8.0","kind":"v.io/c","devices":[{"name":"d","containerEdits":{"hooks":[{"hookName":"never","path":"/x"}]}}]}`,
		"mount":   `{"cdiVersion":"0.8.0","kind":"v.io/c","devices":[{"name":"d","containerEdits":{"mounts":[{"hostPath":"/x"}]}}]}`,
	} {
		put(t, dir, name+".json", text)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := Read([]string{dir})
	if len(d.problems) != 10 || len(d.Names()) != 5 {
		t.Errorf("%d problems, devices %v", len(d.problems), d.Names())
	}
	if err := d.Apply(empty(), []string{"v.io/c=d"}); err == nil || !strings.Contains(err.Error(), "torn.json") {
		t.Errorf("got %v", err)
	}
	if err := d.Apply(empty(), []string{"example.com/gpu=one"}); err != nil {
		t.Error(err)
	}
}

func TestRequested(t *testing.T) {
	got, err := Requested([]string{"a.io/b=c", "a.io/b=c"}, map[string]string{"cdi.k8s.io/x": "a.io/b=c,a.io/b=d", "other": "a.io/b=e"})
	if err != nil || !slices.Equal(got, []string{"a.io/b=c", "a.io/b=d"}) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", "a=b", "a.io/b", "a.io/b=", "1a/b=c", "a/b/c=d", "a.io/b=c d"} {
		if _, err := Requested([]string{bad}, nil); err == nil {
			t.Errorf("%q is a device", bad)
		}
	}
}
