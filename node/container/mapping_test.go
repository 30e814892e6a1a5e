package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func idMap(of ...uint32) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for triple := range slices.Chunk(of, 3) {
		out = append(out, specs.LinuxIDMapping{ContainerID: triple[0], HostID: triple[1], Size: triple[2]})
	}
	return out
}

// A mount has the mapping that it says, whatever the container's, and what is mounted
// below it has it with ridmap only.
func TestMountMappings(t *testing.T) {
	for _, c := range []struct {
		name    string
		user    bool
		options []string
		want    []string
	}{
		{"the host's users", false, []string{"rbind", "idmap"}, []string{"/v/f 201000:202011 644 ok", "/v/below/f 100:211 644 ok"}},
		{"no option", false, []string{"rbind"}, []string{"/v/f 201000:202011 644 ok", "/v/below/f 100:211 644 ok"}},
		{"the whole tree", false, []string{"rbind", "ridmap"}, []string{"/v/f 201000:202011 644 ok", "/v/below/f 201000:202011 644 ok"}},
		{"other users", true, []string{"rbind", "idmap"}, []string{"/v/f 1000:2011 644 ok", "/v/below/f 65534:65534 644 ok"}},
		{"other users, the whole tree", true, []string{"rbind", "ridmap"}, []string{"/v/f 1000:2011 644 ok", "/v/below/f 1000:2011 644 ok"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := mappedBox(t)
			spec := probeSpec("owner", "/v/f", ";", "owner", "/v/below/f", ";", "owner", "/same/f")
			if c.user {
				spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				spec.Linux.UIDMappings, spec.Linux.GIDMappings = mappings().UID, mappings().GID
			}
			m := specs.Mount{
				Source: mappedTree(t, b.dir), Destination: "/v", Type: "bind", Options: c.options,
				UIDMappings: idMap(100, 201000, 1, 101, 201500, 2), GIDMappings: idMap(200, 202000, 20),
			}
			same := m // the same namespace once more
			same.Destination, same.Options = "/same", []string{"bind"}
			spec.Mounts = append(spec.Mounts, m, same)
			_, out := b.run(b.config("c1", spec))
			want := strings.Join(append(c.want, "/same"+strings.TrimPrefix(c.want[0], "/v")), "\n") + "\n"
			if got := strings.ReplaceAll(out, "stdout F ", ""); got != want {
				t.Errorf("saw\n%swant\n%s", got, want)
			}
			if left, _ := filepath.Glob(b.runDir("c1") + "/" + userPin + ".*"); len(left) > 0 {
				t.Errorf("namespaces are left: %v", left)
			}
		})
	}
}

// mappedTree is a directory with a file of somebody's, and a mount with another below.
func mappedTree(t *testing.T, dir string) string {
	t.Helper()
	top, below := filepath.Join(dir, "top"), filepath.Join(dir, "elsewhere")
	for _, d := range []string{filepath.Join(top, "below"), below} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{top, below} {
		f := filepath.Join(d, "f")
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(f, 100, 211); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(top, "below")
	if err := unix.Mount(below, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return top
}

// What cannot be shown as it says is refused: without the mapping, its files would be
// somebody else's.
func TestRefusedMappings(t *testing.T) {
	some := idMap(0, 1, 1)
	var many []specs.Mount
	for i := range uint32(maxOwnMappings + 1) {
		many = append(many, specs.Mount{Source: "/", Destination: "/v", Options: []string{"bind"}, UIDMappings: idMap(0, i, 1), GIDMappings: some})
	}
	for _, c := range []struct {
		mounts []specs.Mount
		want   string
	}{
		{[]specs.Mount{{Source: "/", Destination: "/v", Options: []string{"bind", "idmap"}}}, "has no id mappings, and there is no user namespace"},
		{[]specs.Mount{{Source: "/", Destination: "/v", Options: []string{"bind", "ridmap"}}}, "has no id mappings, and there is no user namespace"},
		{[]specs.Mount{{Source: "/", Destination: "/v", Options: []string{"bind"}, UIDMappings: some}}, "go together"},
		{[]specs.Mount{{Source: "tmpfs", Destination: "/v", Type: "tmpfs", UIDMappings: some, GIDMappings: some}}, "are for bind mounts"},
		{many, "more than 100 different"},
	} {
		b := newBox(t)
		cfg := b.config("c1", probeSpec("id"))
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, c.mounts...)
		if err := b.Create(b.context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Create: %v; want %s", err, c.want)
		}
	}
}
