package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// TestWriteTo: what fails leaves what was there, and nothing where there was nothing.
func TestWriteTo(t *testing.T) {
	whole := func(w io.Writer) error { _, err := w.Write([]byte("new")); return err }
	half := func(w io.Writer) error { return errors.Join(whole(w), errors.ErrUnsupported) }
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"old", "target", "again"} {
		if err := os.WriteFile(at(name), []byte("old"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(at("again"), 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	if root {
		if err := os.Chown(at("again"), 1234, 1234); err != nil {
			t.Fatal(err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(os.Symlink("target", at("link")), os.Symlink(pipe, at("pipe")), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, c := range []struct {
		dest  string
		write func(io.Writer) error
		fails bool
	}{
		{"fresh", whole, false}, {"absent", half, true}, {"old", half, true}, {"again", whole, false}, {"link", whole, false},
		{"pipe", half, true}, {"nowhere/x", whole, true}, {".", whole, true},
	} {
		if err := writeTo(at(c.dest), nil, 0o600, c.write); (err != nil) != c.fails {
			t.Errorf("%s: %v", c.dest, err)
		}
	}
	if got, want := shown(t, dir), "again=new fresh=new link->target old=old pipe->"+pipe+" target=new"; got != want {
		t.Errorf("left are %q, want %q", got, want)
	}
	for name, mode := range map[string]os.FileMode{"fresh": 0o600, "again": 0o666} {
		if info, err := os.Stat(at(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want mode %v", name, info.Mode(), err, mode)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(at("again"), &st); err != nil || root && st.Uid != 1234 {
		t.Errorf("what was another's is %d's, %v", st.Uid, err)
	}
	var out bytes.Buffer
	if err := writeTo("-", &out, 0o600, whole); err != nil || out.String() != "new" {
		t.Errorf("standard output has %q, %v", out.String(), err)
	}
}

// TestPackOthers: an archive has numbers of owners, and no names, which the host has for
// other people; and what has become a pipe in the meantime is not waited for.
func TestPackOthers(t *testing.T) {
	dir := tree(t, "file=x")
	c := copying{source: inside(t, dir, "/.")}
	var out bytes.Buffer
	if err := c.pack(t.Context(), &out, "."); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uname+h.Gname != "" {
			t.Errorf("%s is of %s:%s", h.Name, h.Uname, h.Gname)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if f, err := openSame(root, "pipe", 0); err == nil {
		f.Close()
		t.Error("a pipe was opened")
	}
}

// TestPackAttributes: a file's capabilities are in the archive of an export, and come back
// with the image that import makes of it; this host's labels stay here.
func TestPackAttributes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("capabilities are root's to give")
	}
	dir := tree(t, "file=x", "plain=y", "sub/z=z")
	// Version 2, permitted and effective: CAP_NET_BIND_SERVICE.
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	for _, a := range [][3]string{{"file", "security.capability", capability}, {"file", "user.mine", "a\x00b"}, {"file", "user.empty", ""},
		{"file", "trusted.here", "no"}, {"sub", "user.directory", "d"}} {
		err := unix.Setxattr(filepath.Join(dir, a[0]), a[1], []byte(a[2]), 0)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("this file system has no attributes")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c := copying{source: inside(t, dir, "/.")}
	var out bytes.Buffer
	if err := c.pack(t.Context(), &out, "."); err != nil {
		t.Fatal(err)
	}
	got, content := map[string]map[string]string{}, out.Bytes()
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if maps.DeleteFunc(h.PAXRecords, func(k, _ string) bool { return !strings.HasPrefix(k, attributeRecord) }); len(h.PAXRecords) > 0 {
			got[h.Name] = h.PAXRecords
		}
	}
	want := map[string]map[string]string{
		"file": {attributeRecord + "security.capability": capability, attributeRecord + "user.mine": "a\x00b"},
		"sub/": {attributeRecord + "user.directory": "d"},
	}
	if delete(got["file"], attributeRecord+"user.empty"); !reflect.DeepEqual(got, want) { // a tar has no records without a value
		t.Errorf("the archive has %q, want %q", got, want)
	}
	store, err := image.Open(image.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	img, err := build.FromArchive(t.Context(), store, bytes.NewReader(content), build.Given{Ref: "imported:1"})
	if err != nil {
		t.Fatal(err)
	}
	root, err := store.Prepare("again", img.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Release("again") }()
	var b [64]byte
	n, err := unix.Getxattr(filepath.Join(root.Lower[0], "file"), "security.capability", b[:])
	if err != nil || string(b[:n]) != capability {
		t.Errorf("imported: %q %v", b[:max(n, 0)], err)
	}
}
