package selinux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLabels(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"system_u:system_r:container_t:s0", "system_u system_r container_t s0"},
		{"system_u:system_r:container_t:s0-s15:c0.c1023", "system_u system_r container_t s0-s15:c0.c1023"},
		{"u:r:t", "u r t "},
		{"u:r", `SELinux label "u:r": want user:role:type:level`},
		{"", `SELinux label "": want user:role:type:level`},
		{"u::t:s0", `SELinux label "u::t:s0": want user:role:type:level`},
		{`u:r:t:s0",x="`, `SELinux level "s0\",x=\"": want letters, digits and _.-:,`},
		{"u:r:t t:s0", `SELinux type "t t": want letters, digits and _.-`},
	} {
		l, err := Parse(c.text)
		got := strings.Join([]string{l.User, l.Role, l.Type, l.Level}, " ")
		if err != nil {
			got = err.Error()
		} else if l.String() != c.text {
			t.Errorf("%q is written as %q", c.text, l)
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
	if (Label{}).String() != "" {
		t.Error("no label has a text")
	}
	if got := (Label{"u", "r", "t", "s0"}).With(Label{Type: "x", Level: "s1"}).String(); got != "u:r:x:s1" {
		t.Error(got)
	}
}

func TestPair(t *testing.T) {
	for _, c := range []struct {
		random []int
		want   string
	}{
		{[]int{3, 1000}, "s0:c3,c1001"}, {[]int{1000, 3}, "s0:c3,c1000"}, {[]int{5, 5}, "s0:c5,c6"}, {[]int{0, 0}, "s0:c0,c1"}, {[]int{1023, 1022}, "s0:c1022,c1023"},
	} {
		left := c.random
		got := Pair(func(limit int) int {
			n := left[0]
			left = left[1:]
			if n >= limit {
				t.Errorf("%v: the limit is %d", c.random, limit)
			}
			return n
		})
		if got != c.want {
			t.Errorf("%v: got %s, want %s", c.random, got, c.want)
		}
	}
}

func TestContexts(t *testing.T) {
	for _, c := range []struct{ text, process, file string }{
		{"# Fedora's\nprocess = \"system_u:system_r:container_t:s0\"\ncontent=\"x\"\nfile = \"system_u:object_r:container_file_t:s0\"\nro_file=\"y\"\n",
			"system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"},
		{"process = system_u:system_r:lxc_t\nfile=system_u:object_r:lxc_file_t", "system_u:system_r:lxc_t", "system_u:object_r:lxc_file_t"},
		{"", "", ""},
		{"process = \"a:b:c:s0\"\n#file = \"a:b:c:s0\"\n", "", ""},
	} {
		got, err := contexts(strings.NewReader(c.text))
		if err != nil || got.Process.String() != c.process || got.File.String() != c.file {
			t.Errorf("%q: %+v %v", c.text, got, err)
		}
	}
	if _, err := contexts(strings.NewReader("process=container_t\nfile=x\n")); err == nil {
		t.Error("a type was taken for a label")
	}
}

// Everything is visited, the directory itself last, and no link is followed out of it.
func TestEach(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for _, name := range []string{filepath.Join(dir, "a/b/c"), filepath.Join(dir, "d"), filepath.Join(outside, "secret")} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(outside, filepath.Join(dir, "a/out")), os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "z")),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var got []string
	err = each(context.Background(), root, func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		at, err := filepath.Rel(dir, f.Name())
		got = append(got, info.Mode().Type().String()[:1]+" "+at)
		return err
	})
	if want := []string{"d a", "d a/b", "- a/b/c", "L a/out", "- d", "p pipe", "L z", "d ."}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q %v, want %q", got, err, want)
	}
	stop := errors.New("stop")
	if err := each(context.Background(), root, func(*os.File) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := each(ctx, root, func(*os.File) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOfSystem(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/usr": true, "/var/lib": true, "/proc/sys": true, "/sys/fs": true, "/etc": true, "/home": true,
		"/var/lib/sampan/pods/x": false, "/srv/data": false, "/home/me": false, "/usr/local/data": false, "/process": false,
	} {
		if got := ofSystem(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if err := Relabel(context.Background(), "/usr/../usr/", "u:r:t:s0"); err == nil || !strings.Contains(err.Error(), "the system's own") {
		t.Error(err)
	}
}

// A file's label is an attribute like others, and can be read back where the kernel
// keeps it: file systems do, with a security module or without.
func TestRelabel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("labels are root's to give")
	}
	if Enabled() {
		t.Skip("the policy of this host would want to know the label")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub/file"), nil, 0o600),
		os.Symlink("/etc/hostname", filepath.Join(dir, "link")), os.Symlink(dir, dir+".link")); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir + ".link")
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	if err := unix.Lsetxattr(dir, Attribute, []byte(label), 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this file system keeps no labels")
	}
	if err := Relabel(context.Background(), dir+".link", label); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "sub", "sub/file", "link"} {
		var b [200]byte
		n, err := unix.Lgetxattr(filepath.Join(dir, name), Attribute, b[:])
		if err != nil || string(b[:max(n, 0)]) != label {
			t.Errorf("%q: %q %v", name, b[:max(n, 0)], err)
		}
	}
	var b [200]byte
	if n, err := unix.Getxattr("/etc/hostname", Attribute, b[:]); err == nil && string(b[:n]) == label {
		t.Error("the link was followed")
	}
	if err := Relabel(context.Background(), filepath.Join(dir, "sub/file"), "a:b:c:s0"); err != nil {
		t.Error(err)
	}
}

// What a path has led to when it was opened is judged and labelled, and not what is put in
// its place meanwhile.
func TestRelabelWhatIsOpen(t *testing.T) {
	if os.Getuid() != 0 || Enabled() {
		t.Skip("labels are root's to give, and the policy's to know")
	}
	parent, outside := t.TempDir(), t.TempDir()
	path, moved := filepath.Join(parent, "volume"), filepath.Join(parent, "moved")
	if err := errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "file"), nil, 0o600), os.WriteFile(filepath.Join(outside, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	const label = "system_u:object_r:container_file_t:s0:c3,c4"
	if err := unix.Lsetxattr(parent, Attribute, []byte(label), 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this file system keeps no labels")
	}
	open := func(path string) *os.File {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), path)
		t.Cleanup(func() { f.Close() })
		return f
	}
	f := open(path)
	if err := errors.Join(os.Rename(path, moved), os.Symlink(outside, path)); err != nil {
		t.Fatal(err)
	}
	if err := relabelOpen(t.Context(), f, label); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{moved: true, filepath.Join(moved, "file"): true, outside: false, filepath.Join(outside, "file"): false} {
		var b [200]byte
		n, err := unix.Lgetxattr(file, Attribute, b[:])
		if got := err == nil && string(b[:n]) == label; got != want {
			t.Errorf("%s: labelled %v", file, got)
		}
	}
	// A name that is harmless says nothing of what has been opened by it.
	link := filepath.Join(parent, "link")
	if err := os.Symlink("/usr", link); err != nil {
		t.Fatal(err)
	}
	system := open(link)
	if err := errors.Join(os.Remove(link), os.Mkdir(link, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := relabelOpen(t.Context(), system, label); err == nil || !strings.Contains(err.Error(), "the system's own") {
		t.Error(err)
	}
}
