package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// write fills a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRoundTrip: what is packed is unpacked, and what is no part of an archive is left out.
func TestRoundTrip(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := Description{Config: Config{ID: "1", Name: "c", RootfsImageRef: "sha256:ab", CheckpointedAt: at}, Spec: &specs.Spec{Hostname: "h"},
		Mounts: []BindMount{{Source: "/s", Destination: "/d", FileType: "file", Permissions: 0o644}}}
	write(t, from, map[string]string{"checkpoint/inventory.img": "i", "checkpoint/pages-1.img": "memory", "checkpoint/x y": "no image", "rootfs-diff.tar": "d",
		"stats-dump": "s", "dump.log": "l", "secret": "x", "checkpoint/deeper/a.img": "x"})
	if err := errors.Join(Describe(from, d), Deleted(from, []string{"/gone"}), os.Symlink("/etc/passwd", filepath.Join(from, "checkpoint/link.img"))); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Pack(from, &b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(bytes.NewReader(b.Bytes())); ; {
		h, err := in.Next()
		if err != nil {
			break
		}
		if h.Mode&0o077 != 0 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		names = append(names, h.Name)
	}
	want := "bind.mounts checkpoint/ checkpoint/inventory.img checkpoint/pages-1.img config.dump deleted.files dump.log rootfs-diff.tar spec.dump stats-dump"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("packed\n%s, want\n%s", got, want)
	}
	if err := Unpack(t.Context(), &b, to); err != nil {
		t.Fatal(err)
	}
	got, err := Read(to)
	if err != nil || got.Config != d.Config || got.Spec.Hostname != "h" || len(got.Mounts) != 1 || got.Mounts[0] != d.Mounts[0] {
		t.Errorf("read %+v, %v", got, err)
	}
	deleted, err := ReadDeleted(to)
	if err != nil || len(deleted) != 1 || deleted[0] != "/gone" {
		t.Errorf("deleted %q, %v", deleted, err)
	}
	f, err := OpenDiff(to)
	if err != nil || f == nil {
		t.Fatalf("diff: %v", err)
	}
	f.Close()
}

// TestHostile: an archive may be anybody's.
func TestHostile(t *testing.T) {
	file := func(name string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: 1}
	}
	for name, c := range map[string]struct {
		entries []*tar.Header
		refused bool
		left    string
	}{
		"outside":        {[]*tar.Header{file("../../escaped"), file("/etc/x"), file("checkpoint/../../y")}, false, ""},
		"odd image":      {[]*tar.Header{file("checkpoint/-rf"), file("checkpoint/a b"), file("checkpoint/$(x)"), file("checkpoint/.hidden")}, false, ""},
		"deeper":         {[]*tar.Header{file("checkpoint/a/b.img")}, false, ""},
		"dressed up":     {[]*tar.Header{file("./checkpoint//a.img")}, false, "checkpoint/a.img"},
		"symbolic link":  {[]*tar.Header{{Name: "checkpoint/pages-1.img", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}}, true, ""},
		"hard link":      {[]*tar.Header{{Name: "rootfs-diff.tar", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}}, true, ""},
		"device":         {[]*tar.Header{{Name: "checkpoint/a.img", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}, true, ""},
		"twice":          {[]*tar.Header{file("config.dump"), file("config.dump")}, true, "config.dump"},
		"directory link": {[]*tar.Header{{Name: "checkpoint", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, file("checkpoint/a.img")}, false, "checkpoint/a.img"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range c.entries {
				if err := w.WriteHeader(h); err != nil {
					t.Fatal(err)
				}
				if h.Size > 0 {
					if _, err := w.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "a", "b")
			err := Unpack(t.Context(), &b, dir)
			if refused := errors.Is(err, ErrInvalid); refused != c.refused || err != nil && !refused {
				t.Errorf("refused: %v", err)
			}
			var left []string
			if err := filepath.WalkDir(filepath.Dir(filepath.Dir(dir)), func(path string, e os.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					rel, _ := filepath.Rel(dir, path)
					left = append(left, rel)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(left, " "); got != c.left {
				t.Errorf("left %q, want %q", got, c.left)
			}
		})
	}
}

// TestRead: what lies unpacked, in an image's layer say, is looked at as closely.
func TestRead(t *testing.T) {
	whole := map[string]string{"config.dump": "{}", "spec.dump": "{}", "checkpoint/inventory.img": "i"}
	for name, change := range map[string]func(dir string) error{
		"no description":      func(dir string) error { return os.Remove(filepath.Join(dir, "config.dump")) },
		"no specification":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "spec.dump"), []byte("null"), 0o600) },
		"no images":           func(dir string) error { return os.Remove(filepath.Join(dir, "checkpoint/inventory.img")) },
		"linked image":        func(dir string) error { return os.Symlink("/etc/shadow", filepath.Join(dir, "checkpoint/pages-1.img")) },
		"linked description":  func(dir string) error { return relink(filepath.Join(dir, "config.dump"), "/etc/passwd") },
		"linked directory":    func(dir string) error { return relink(filepath.Join(dir, "checkpoint"), "/etc") },
		"directory of images": func(dir string) error { return os.Mkdir(filepath.Join(dir, "checkpoint/a.img"), 0o700) },
		"nonsense":            func(dir string) error { return os.WriteFile(filepath.Join(dir, "bind.mounts"), []byte("{}"), 0o600) },
	} {
		dir := t.TempDir()
		write(t, dir, whole)
		if _, err := Read(dir); err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func relink(path, to string) error {
	return errors.Join(os.RemoveAll(path), os.Symlink(to, path))
}
