package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

// A directory as skopeo and podman write it with dir: has a manifest and, beside it,
// blobs that are called by the hex part of their digests.
func TestLoadDirectory(t *testing.T) {
	needRoot(t)
	from := open(t)
	want := build(t, from, "a:1", layerTar(t, entry{name: "f", body: "content"}))
	dir := t.TempDir()
	for _, d := range []digest.Digest{want.Manifest, digest.Digest(want.ID), want.Layers[0].Digest} {
		raw, err := os.ReadFile(from.blobPath(d))
		name := d.Encoded()
		if d == want.Manifest {
			name = "manifest.json"
		}
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, name), raw, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	to := open(t)
	got, err := to.LoadLayout(t.Context(), dir)
	if err != nil || len(got) != 1 || got[0].ID != want.ID || got[0].Manifest != want.Manifest {
		t.Fatalf("%+v, %v, want %s", got, err, want.ID)
	}
	if list, err := to.List(); err != nil || len(list) != 1 || len(list[0].Tags) != 0 {
		t.Errorf("images %+v, %v", list, err)
	}
}

// One image of a layout comes without a name: that of a tag, of a digest, or the only one.
func TestAdopt(t *testing.T) {
	needRoot(t)
	from := open(t) // a store is a layout
	one := build(t, from, "one:1", layerTar(t, entry{name: "f", body: "one"}))
	to := open(t)
	for _, which := range []string{"", "1", one.Manifest.String(), "docker.io/library/one:1"} {
		if got, err := to.Adopt(t.Context(), from.root, which); err != nil || got.ID != one.ID {
			t.Errorf("%q: %+v, %v", which, got, err)
		}
	}
	two := build(t, from, "two:latest", layerTar(t, entry{name: "f", body: "two"}))
	if got, err := to.Adopt(t.Context(), from.root, ""); err != nil || got.ID != two.ID {
		t.Errorf("latest: %+v, %v", got, err)
	}
	if _, err := to.Adopt(t.Context(), from.root, "9"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tag that there is not: %v", err)
	}
	if list, err := to.List(); err != nil || len(list) != 2 || len(list[0].Tags)+len(list[1].Tags) != 0 {
		t.Errorf("images %+v, %v", list, err)
	}
}
