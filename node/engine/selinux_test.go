package engine

import (
	"log/slog"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/engine/spec"
)

// A level is nobody's when a pod gets it, also after the engine has begun anew.
func TestFreshLevel(t *testing.T) {
	dir := t.TempDir()
	r, err := openRecords(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := newID()
	s := &sandbox{ID: id, Config: &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: "a"}},
		Labels: spec.Labels{Process: "u:r:t:s0:c1,c2", Mount: "u:object_r:f:s0:c1,c2"}, Ready: true}
	if err := r.reserveSandbox(s); err != nil {
		t.Fatal(err)
	}
	if err := r.putSandbox(s); err != nil {
		t.Fatal(err)
	}
	c := &ctr{ID: newID(), SandboxID: id, Config: &rt.ContainerConfig{Metadata: &rt.ContainerMetadata{Name: "c"},
		Linux: &rt.LinuxContainerConfig{SecurityContext: &rt.LinuxContainerSecurityContext{SelinuxOptions: &rt.SELinuxOption{Level: "s0:c3,c4"}}}}}
	if err := r.reserveContainer(c); err != nil {
		t.Fatal(err)
	}
	if err := r.createContainer(c); err != nil {
		t.Fatal(err)
	}
	if r, err = openRecords(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	numbers := []int{1, 1, 4, 3, 5, 5}
	next := func(int) int {
		n := numbers[0]
		numbers = numbers[1:]
		return n
	}
	if got := freshLevel(next, r.levelTaken); got != "s0:c5,c6" {
		t.Errorf("got %s", got)
	}
	if got := freshLevel(func(int) int { return 1 }, func(string) bool { return true }); got != "s0:c1,c2" {
		t.Errorf("with none left: %s", got)
	}
	if err := r.dropContainer(r.container(c.ID)); err != nil {
		t.Fatal(err)
	}
	if err := r.dropSandbox(r.sandbox(id)); err != nil {
		t.Fatal(err)
	}
	if r.levelTaken("s0:c1,c2") || r.levelTaken("s0:c3,c4") {
		t.Error("a level is kept by nobody")
	}
}
