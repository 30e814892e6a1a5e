package container

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/steps"
)

// New file systems appear under the label of the spec, what is bound does not, and
// without SELinux nothing does.
func TestMountLabel(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	spec := DefaultSpec()
	spec.Process.Args, spec.Linux.MountLabel = []string{"x"}, label
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/own", Type: "tmpfs", Options: []string{"size=1k", `context="u:object_r:own_t:s0:c3,c4"`, "ro"}},
		specs.Mount{Destination: "/bound", Type: "bind", Source: "/x", Options: []string{"rbind"}})
	for name, want := range map[string]string{
		"SELinux": "/proc: /dev:" + label + " /dev/pts:" + label + " /dev/shm:" + label + " /dev/mqueue:root " + label +
			" /sys: /own:u:object_r:own_t:s0:c3,c4 /bound: layers:" + label,
		"none": "/proc: /dev: /dev/pts: /dev/shm: /dev/mqueue: /sys: /own:u:object_r:own_t:s0:c3,c4 /bound: layers:",
	} {
		r := &Runtime{cfg: Config{Run: "/run/x"}, log: slog.New(slog.DiscardHandler), labels: labels, labelsFiles: func() bool { return name == "SELinux" }}
		p, _, err := r.translate(&CreateConfig{ID: "c", Spec: spec, Rootfs: Rootfs{Lower: []string{"/a", "/b"}, Upper: "/u", Work: "/w"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range p.Mounts {
			text := m.Target + ":" + m.Context
			if m.RootLabel != "" {
				text += "root " + m.RootLabel
			}
			if strings.Contains(m.Data, "context") {
				t.Errorf("%s: a label among the options %q", m.Target, m.Data)
			}
			if !strings.HasPrefix(m.Target, "/sys/fs/cgroup") { // one mount, or of version 1 many
				got = append(got, text)
			}
		}
		got = append(got, "layers:"+p.Root.Context)
		if slices.Sort(got); strings.Join(got, " ") != strings.Join(sorted(want), " ") {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func sorted(text string) []string {
	// "root " belongs to what follows it.
	f := strings.Fields(strings.ReplaceAll(text, "root ", "root_"))
	for i := range f {
		f[i] = strings.ReplaceAll(f[i], "root_", "root ")
	}
	slices.Sort(f)
	return f
}

// A root of one layer that can only be read is bound, unless it has to have a label.
func TestLabelOfOneLayer(t *testing.T) {
	spec := DefaultSpec()
	spec.Linux.MountLabel = "u:object_r:t:s0"
	for has, want := range map[bool]string{true: " /a /run/x/c/rootfs", false: "/a"} {
		r := &Runtime{cfg: Config{Run: "/run/x"}, labelsFiles: func() bool { return has }}
		p := &plan.Plan{}
		if err := r.planRoot(p, &CreateConfig{ID: "c", Spec: spec, Rootfs: Rootfs{Lower: []string{"/a"}}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(append([]string{p.Root.Path}, p.Root.Lower...), " "); got != want {
			t.Errorf("%v: %q, want %q", has, got, want)
		}
	}
}

// A list of calls says the label in one piece, though there are commas in it.
func TestLabelInCalls(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	spec := DefaultSpec()
	spec.Process.Args, spec.Linux.MountLabel = []string{"x"}, label
	for _, named := range []bool{false, true} {
		r := &Runtime{cfg: Config{Run: "/run/x"}, log: slog.New(slog.DiscardHandler), labels: labels, labelsFiles: func() bool { return true }, named: named}
		p, _, err := r.translate(&CreateConfig{ID: "c", Spec: spec, Rootfs: Rootfs{Lower: []string{"/a"}, Upper: "/u", Work: "/w"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err := steps.Init(p, false)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(list), label+"\x00"); n == 0 {
			t.Errorf("named %v: no label among the calls", named)
		}
		if strings.Contains(string(list), `context="`+label+`"`) != named {
			t.Errorf("named %v: the label is not in quotes where, and only where, mount(2) wants it so", named)
		}
	}
}
