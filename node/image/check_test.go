package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// What has been changed behind the store's back is named, with who needs it; what is
// mended is as it was.
func TestCheck(t *testing.T) {
	needRoot(t)
	layer := func() io.Reader {
		return layerTar(t, entry{name: "etc/passwd", body: "root"}, entry{name: "etc/link", kind: tar.TypeSymlink, link: "passwd"}, entry{name: "bin/tool", body: "tool", mode: 0o755})
	}
	for name, c := range map[string]struct {
		harm  func(s *Store, img Image) error
		layer bool
		want  string
	}{
		"content": {func(s *Store, img Image) error {
			return os.WriteFile(filepath.Join(s.layerPath(img.Chain(0)), "etc/passwd"), []byte("toor"), 0o600)
		}, true, `the content of "etc/passwd" is not the image's`},
		"length": {func(s *Store, img Image) error {
			return os.Truncate(filepath.Join(s.layerPath(img.Chain(0)), "bin/tool"), 1)
		}, true, `"bin/tool" has 1 bytes, and should have 4`},
		"mode": {func(s *Store, img Image) error {
			return os.Chmod(filepath.Join(s.layerPath(img.Chain(0)), "bin/tool"), 0o700)
		}, true, `"bin/tool" has mode`},
		"owner": {func(s *Store, img Image) error {
			return os.Lchown(filepath.Join(s.layerPath(img.Chain(0)), "etc/link"), 1, 2)
		}, true, `"etc/link" has owner 1:2, and should have 7:8`},
		"target": {func(s *Store, img Image) error {
			at := filepath.Join(s.layerPath(img.Chain(0)), "etc/link")
			return errors.Join(os.Remove(at), os.Symlink("shadow", at), os.Lchown(at, 7, 8))
		}, true, `"etc/link" leads to "shadow", and should to "passwd"`},
		"missing": {func(s *Store, img Image) error {
			return os.Remove(filepath.Join(s.layerPath(img.Chain(0)), "etc/link"))
		}, true, `"etc/link" is missing`},
		"more": {func(s *Store, img Image) error {
			return os.WriteFile(filepath.Join(s.layerPath(img.Chain(0)), "etc/more"), nil, 0o600)
		}, true, `"etc/more" is not of the image`},
		"attribute": {func(s *Store, img Image) error {
			return unix.Setxattr(filepath.Join(s.layerPath(img.Chain(0)), "bin"), "trusted.overlay.opaque", []byte("y"), 0)
		}, true, `the attributes of "bin"`},
		"blob": {func(s *Store, img Image) error { return flip(s.blobPath(img.Layers[0].Digest)) }, false, "content does not match its digest"},
		"cut blob": {func(s *Store, img Image) error {
			return os.Truncate(s.blobPath(img.Layers[0].Digest), 5)
		}, false, "it has 5 bytes"},
		"no blob":  {func(s *Store, img Image) error { return os.Remove(s.blobPath(img.Layers[0].Digest)) }, false, "it is missing"},
		"config":   {func(s *Store, img Image) error { return flip(s.blobPath(digest.Digest(img.ID))) }, false, "content does not match its digest"},
		"manifest": {func(s *Store, img Image) error { return flip(s.blobPath(img.Manifest)) }, false, "it is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			img := build(t, s, "app:1", layer())
			other := build(t, s, "other:1", layerTar(t, entry{name: "f", body: "well"}))
			if found, err := s.Check(t.Context(), CheckOptions{}); err != nil || len(found.Damaged) != 0 || found.Layers != 2 || found.Blobs < 6 || found.Bytes == 0 {
				t.Fatalf("before: %+v, %v", found, err)
			}
			if err := c.harm(s, img); err != nil {
				t.Fatal(err)
			}
			found, err := s.Check(t.Context(), CheckOptions{})
			if err != nil || len(found.Damaged) != 1 {
				t.Fatalf("%+v, %v", found, err)
			}
			d := found.Damaged[0]
			if d.Layer != c.layer || !strings.Contains(d.Cause.Error(), c.want) || !slices.Equal(d.Images, []string{"docker.io/library/app:1"}) || d.Mended || len(d.Origins) != 0 {
				t.Errorf("%+v, want %s", d, c.want)
			}
			if one, err := s.Check(t.Context(), CheckOptions{Image: other.ID}); err != nil || len(one.Damaged) != 0 || one.Layers != 1 || one.Blobs != 3 {
				t.Errorf("the other image alone: %+v, %v", one, err)
			}
			if name != "config" && name != "manifest" { // of which it would not be found
				if one, err := s.Check(t.Context(), CheckOptions{Image: img.ID}); err != nil || len(one.Damaged) != 1 {
					t.Errorf("the image alone: %+v, %v", one, err)
				}
			}
			if again, err := s.Check(t.Context(), CheckOptions{Repair: true}); err != nil || len(again.Damaged) != 1 || again.Damaged[0].Mended != c.layer {
				t.Fatalf("repair: %+v, %v", again, err)
			}
			after, err := s.Check(t.Context(), CheckOptions{})
			if want := map[bool]int{true: 0, false: 1}[c.layer]; err != nil || len(after.Damaged) != want {
				t.Errorf("after: %+v, %v", after, err)
			}
			if _, err := s.Prepare("c", other.ID); err != nil {
				t.Errorf("the other image: %v", err)
			}
			if left, err := os.ReadDir(filepath.Join(s.root, "ingest")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// flip turns a bit in the middle of a file.
func flip(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	raw[len(raw)/2] ^= 1
	return os.WriteFile(file, raw, 0o600)
}

// What containers stand on is named and left as it is; a quick look reads no content.
func TestCheckOfWhatIsUsed(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "app:1", layerTar(t, entry{name: "f", body: "well"}))
	if _, err := s.Prepare("c1", "app:1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.layerPath(img.Chain(0)), "f"), []byte("hell"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Check(t.Context(), CheckOptions{Quick: true}); err != nil || len(found.Damaged) != 0 || found.Layers != 0 || found.Bytes != 0 {
		t.Errorf("quick: %+v, %v", found, err)
	}
	found, err := s.Check(t.Context(), CheckOptions{Repair: true})
	if err != nil || len(found.Damaged) != 1 || found.Damaged[0].Mended || !slices.Equal(found.Damaged[0].Snapshots, []string{"c1"}) {
		t.Fatalf("%+v, %v", found, err)
	}
	if err := s.Release("c1"); err != nil {
		t.Fatal(err)
	}
	if found, err = s.Check(t.Context(), CheckOptions{Repair: true}); err != nil || len(found.Damaged) != 1 || !found.Damaged[0].Mended {
		t.Fatalf("afterwards: %+v, %v", found, err)
	}
	if raw, err := os.ReadFile(filepath.Join(s.layerPath(img.Chain(0)), "f")); err != nil || string(raw) != "well" {
		t.Errorf("%q, %v", raw, err)
	}
	if err := flip(s.blobPath(img.Layers[0].Digest)); err != nil {
		t.Fatal(err)
	}
	if found, err = s.Check(t.Context(), CheckOptions{}); err != nil || len(found.Damaged) != 1 || found.Skipped != 1 {
		t.Errorf("without a blob to compare with: %+v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Check(ctx, CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// A layer is not taken away from under a container that has come since the look began, nor
// while somebody else is busy with the store, as a build is.
func TestCheckOfWhatIsUsedMeanwhile(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "app:1", layerTar(t, entry{name: "f", body: "well"}))
	if err := os.WriteFile(filepath.Join(s.layerPath(img.Chain(0)), "f"), []byte("hell"), 0o600); err != nil {
		t.Fatal(err)
	}
	end, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	c := &checking{store: s, opts: CheckOptions{Repair: true}, end: end, bad: map[digest.Digest]bool{}}
	if err := c.survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare("late", "app:1"); err != nil {
		t.Fatal(err)
	}
	err = c.layers(t.Context())
	c.end()
	if d := c.found.Damaged; err != nil || len(d) != 1 || d[0].Mended || !slices.Equal(d[0].Snapshots, []string{"late"}) {
		t.Errorf("%+v, %v", d, err)
	}
	if err := s.Release("late"); err != nil {
		t.Fatal(err)
	}
	busy, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.Check(t.Context(), CheckOptions{Repair: true}); err != nil || len(found.Damaged) != 1 || found.Damaged[0].Mended {
		t.Errorf("while a build goes on: %+v, %v", found, err)
	}
	busy()
	if found, err := s.Check(t.Context(), CheckOptions{Repair: true}); err != nil || len(found.Damaged) != 1 || !found.Damaged[0].Mended {
		t.Errorf("afterwards: %+v, %v", found, err)
	}
}

// A blob that is damaged does not leave this machine.
func TestSaveDamaged(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "app:1", layerTar(t, entry{name: "f", body: "well"}))
	if err := flip(s.blobPath(img.Layers[0].Digest)); err != nil {
		t.Fatal(err)
	}
	err := s.Save(io.Discard, "app:1")
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), img.Layers[0].Digest.String()) {
		t.Errorf("%v", err)
	}
}
