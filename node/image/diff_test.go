package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDiff: what one snapshot has changed is what another has afterwards.
func TestDiff(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "diff.test/a:1", layerTar(t, entry{name: "keep/old", body: "old"}, entry{name: "keep/gone", body: "x"}, entry{name: "owned/f", body: "x"})).ID
	from, err := s.Prepare("from", img)
	if err != nil {
		t.Fatal(err)
	}
	to, err := s.Prepare("to", img)
	if err != nil {
		t.Fatal(err)
	}
	up := func(name string) string { return filepath.Join(from.Upper, name) }
	whiteout := int(unix.Mkdev(0, 0))
	if err := errors.Join(os.Mkdir(up("keep"), 0o700), os.WriteFile(up("keep/new"), []byte("new"), 0o640), os.Chown(up("keep/new"), 7, 8),
		unix.Setxattr(up("keep/new"), "user.note", []byte("mine"), 0), unix.Mknod(up("keep/gone"), unix.S_IFCHR, whiteout),
		os.Symlink("../../etc/passwd", up("link")), unix.Mkfifo(up("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	changes, err := s.Changes("from", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	deleted, err := s.WriteDiff(&b, "from", changes)
	if err != nil || !slices.Equal(deleted, []string{"/keep/gone"}) {
		t.Fatalf("deleted %q, %v", deleted, err)
	}
	if err := s.ApplyDiff(t.Context(), "to", &b, deleted); err != nil {
		t.Fatal(err)
	}
	again, err := s.Changes("to", func(string) bool { return false })
	if err != nil || !slices.Equal(again, changes) {
		t.Errorf("%v, %v; want %v", again, err, changes)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(to.Upper, "keep/new"), &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mode&0o777 != 0o640 {
		t.Errorf("a file is %d:%d %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	note := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(to.Upper, "keep/new"), "user.note", note); err != nil || string(note[:n]) != "mine" {
		t.Errorf("an attribute is %q, %v", note[:max(n, 0)], err)
	}
	if info, err := os.Stat(filepath.Join(to.Upper, "keep")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a directory: %v, %v", info, err)
	}
}

// TestHostileDiff: the tar and the list come with a checkpoint, and are anybody's.
func TestHostileDiff(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "diff.test/a:1", layerTar(t, entry{name: "f", body: "x"})).ID
	outside := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(outside, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, paths := range [][]string{{"/"}, {""}, {"../../../../../../.." + outside}, {"lead" + outside}, {strings.Repeat("x", MaxPath+1)}} {
		key := string(rune('a' + i))
		if _, err := s.Prepare(key, img); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: "lead", Typeflag: tar.TypeSymlink, Linkname: "/"}), w.Close()); err != nil {
			t.Fatal(err)
		}
		err := s.ApplyDiff(t.Context(), key, &b, paths)
		if len(paths[0]) < 2 && err == nil {
			t.Errorf("%q was deleted", paths)
		}
		if got, err := os.ReadFile(outside); err != nil || string(got) != "safe" {
			t.Errorf("after %.80q: %q, %v", paths, got, err)
		}
	}
}
