package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree writes files below a new directory: "a/b=content", "a/l->target", "d/".
func tree(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		name, content, file := strings.Cut(e, "=")
		link, target, isLink := strings.Cut(e, "->")
		var err error
		switch {
		case isLink:
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755), os.Symlink(target, filepath.Join(dir, link)))
		case file:
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
		default:
			err = os.MkdirAll(filepath.Join(dir, e), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shown is a tree in the words of tree.
func shown(t *testing.T, dir string) string {
	t.Helper()
	var words []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
		switch {
		case err != nil || name == "":
			return err
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			words = append(words, name+"->"+target)
			return err
		case e.IsDir():
			words = append(words, name+"/")
			return nil
		}
		raw, err := os.ReadFile(path)
		words = append(words, name+"="+string(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(words, " ")
}

// inside is a place in a container whose root is dir.
func inside(t *testing.T, dir, path string) place {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return place{root: f, path: path}
}

// Where a copy goes, by docker's rules; links of the container lead nowhere else.
func TestCopyIntoContainer(t *testing.T) {
	for _, c := range []struct {
		what, source, target, want string
		fails                      string
	}{
		{what: "a file to a name", source: "f", target: "/new", want: "d/ d/old=o link->/d new=f"},
		{what: "a file into a directory", source: "f", target: "/d", want: "d/ d/f=f d/old=o link->/d"},
		{what: "a file over another", source: "f", target: "d/old", want: "d/ d/old=f link->/d"},
		{what: "a file through an absolute link", source: "f", target: "/link/", want: "d/ d/f=f d/old=o link->/d"},
		{what: "a file up and out", source: "f", target: "/../../../new", want: "d/ d/old=o link->/d new=f"},
		{what: "a file to a directory that is not there", source: "f", target: "/none/", fails: "no directory"},
		{what: "a file below one that is not there", source: "f", target: "/none/f", fails: "no such file"},
		{what: "a directory to a name", source: "s", target: "/new", want: "d/ d/old=o link->/d new/ new/l->../../x new/t/ new/t/g=g"},
		{what: "a directory into another", source: "s", target: "/d", want: "d/ d/old=o d/s/ d/s/l->../../x d/s/t/ d/s/t/g=g link->/d"},
		{what: "what is in a directory", source: "s/.", target: "/d", want: "d/ d/l->../../x d/old=o d/t/ d/t/g=g link->/d"},
		{what: "a directory over a file", source: "s", target: "/d/old", fails: "cannot become a directory"},
		{what: "what is not there", source: "none", target: "/d", fails: "no such file"},
	} {
		from, root := tree(t, "f=f", "s/t/g=g", "s/l->../../x"), tree(t, "d/old=o", "link->/d")
		cp := copying{source: place{path: from + "/" + c.source}, target: inside(t, root, c.target)}
		err := cp.run(t.Context())
		switch {
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v, want %q", c.what, err, c.fails)
			}
		case err != nil:
			t.Errorf("%s: %v", c.what, err)
		default:
			if got := shown(t, root); got != c.want {
				t.Errorf("%s:\n%s\n%s", c.what, got, c.want)
			}
		}
	}
}

// What comes out of a container is what is in it, not what its links name here.
func TestCopyOutOfContainer(t *testing.T) {
	root, here := tree(t, "etc/conf=theirs", "evil->../../../../etc/hostname", "abs->/etc/conf"), tree(t)
	for source, as := range map[string]string{"/etc": "etc", "abs": "abs", "/etc/conf": "conf"} {
		cp := copying{source: inside(t, root, source), target: place{path: filepath.Join(here, as)}}
		if err := cp.run(t.Context()); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	followed := copying{copyFlags: copyFlags{follow: true}, source: inside(t, root, "abs"), target: place{path: filepath.Join(here, "followed")}}
	if err := followed.run(t.Context()); err != nil {
		t.Error(err)
	}
	evil := copying{copyFlags: copyFlags{follow: true}, source: inside(t, root, "evil"), target: place{path: filepath.Join(here, "evil")}}
	if err := evil.run(t.Context()); err == nil {
		t.Error("a link led out of the container, or to nothing, and was copied")
	}
	if got, want := shown(t, here), "abs->/etc/conf conf=theirs etc/ etc/conf=theirs followed=theirs"; got != want {
		t.Errorf("\n%s\n%s", got, want)
	}
}

// A file that acts for its owner does so for no other: a container's would act for whoever
// copies, who is root.
func TestCopyOfSetuid(t *testing.T) {
	const bits = fs.ModeSetuid | fs.ModeSetgid
	for _, c := range []struct {
		what         string
		out, archive bool
		header       tar.Header
		want         fs.FileMode
	}{
		{"out of a container", true, false, tar.Header{Uid: 0, Mode: 0o6755}, 0},
		{"out of a container, with its owner", true, true, tar.Header{Uid: 1, Mode: 0o6755}, bits},
		{"root's into a container", false, false, tar.Header{Mode: 0o6755}, bits},
		{"a user's into a container", false, false, tar.Header{Uid: 1, Mode: 0o6755}, fs.ModeSetgid},
		{"a group's into a container", false, false, tar.Header{Gid: 1, Mode: 0o6755}, fs.ModeSetuid},
	} {
		cp := copying{copyFlags: copyFlags{archive: c.archive}}
		if !c.out {
			cp.target = inside(t, t.TempDir(), "/")
		}
		c.header.Typeflag = tar.TypeReg
		if got := cp.mode(&c.header); got != 0o755|c.want {
			t.Errorf("%s: %s, want %s", c.what, got, 0o755|c.want)
		}
	}
	root, here := tree(t, "evil=x"), t.TempDir()
	if err := os.Chmod(filepath.Join(root, "evil"), 0o755|fs.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	cp := copying{source: inside(t, root, "evil"), target: place{path: filepath.Join(here, "evil")}}
	if err := cp.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(here, "evil")); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}

// An archive goes in and out; nothing in it reaches a place outside.
func TestCopyArchives(t *testing.T) {
	root := tree(t, "d/f=f")
	var archive bytes.Buffer
	out := copying{source: inside(t, root, "/d"), target: place{path: "-"}, out: &archive}
	if err := out.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	to := tree(t, "here/")
	in := copying{source: place{path: "-"}, in: &archive, target: inside(t, to, "/here")}
	if err := in.run(t.Context()); err != nil || shown(t, to) != "here/ here/d/ here/d/f=f" {
		t.Errorf("%v: %s", err, shown(t, to))
	}
	for text, want := range map[string]bool{"web:/x": true, "web:x": true, "./web:x": false, "/web:x": false, "a/b:c": false, "x": false, ":x": false} {
		if _, is := containerPath(text); is != want {
			t.Errorf("%q is a container's path: %t", text, is)
		}
	}
}
