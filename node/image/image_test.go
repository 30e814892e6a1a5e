package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// entry is one line of a test layer.
type entry struct {
	name, body, link string
	kind             byte
	mode             int64
}

func layerTar(t testing.TB, entries ...entry) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if e.mode == 0 {
			e.mode = 0o644
		}
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.body)), Uid: 7, Gid: 8}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("unpacking layers sets owners and makes device nodes: needs root")
	}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// build commits an image of the given layers under ref.
func build(t *testing.T, s *Store, ref string, layers ...io.Reader) Image {
	t.Helper()
	b, err := s.NewBuild()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var made []Layer
	for _, l := range layers {
		one, err := b.WriteLayer(l)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, one)
	}
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: architecture("")},
		Config:   ocispec.ImageConfig{Entrypoint: []string{"/hello"}},
	}
	img, err := b.Commit(t.Context(), config, made, Naming{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestNormalise(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                     "docker.io/library/busybox:latest",
		"hello:v1":                    "docker.io/library/hello:v1",
		"me/app":                      "docker.io/me/app:latest",
		"localhost:5000/a/b:c":        "localhost:5000/a/b:c",
		"registry.example/x:1":        "registry.example/x:1",
		"index.docker.io/library/a:b": "docker.io/library/a:b",
	} {
		if got, err := Normalise(in); err != nil || got != want {
			t.Errorf("Normalise(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "UPPER", "a b", "x@sha256:12"} {
		if got, err := Normalise(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("Normalise(%q) = %q, %v; want ErrInvalid", in, got, err)
		}
	}
}

func TestImageLife(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "hello:v1",
		layerTar(t, entry{name: "etc/", kind: tar.TypeDir, mode: 0o750}, entry{name: "etc/a", body: "one"}, entry{name: "etc/b", body: "two"}),
		layerTar(t, entry{name: "etc/.wh.a"}, entry{name: "bin/run", body: "#!", mode: 0o4755}))

	for _, ref := range []string{"hello:v1", "docker.io/library/hello:v1", img.ID, img.ID[7:19], img.Digests[0]} {
		if got, err := s.Get(ref); err != nil || got.ID != img.ID {
			t.Errorf("Get(%q) = %v, %v", ref, got.ID, err)
		}
	}
	rootfs, err := s.Prepare("c1", "hello:v1")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(rootfs.Lower[0], "etc/a"), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: mode %o rdev %d, %v", st.Mode, st.Rdev, err)
	}
	if err := unix.Lstat(filepath.Join(rootfs.Lower[0], "etc"), &st); err != nil || st.Mode&0o777 != 0o750 || st.Uid != 7 {
		t.Errorf("left-out parent: mode %o uid %d, %v; want those of the layer below", st.Mode, st.Uid, err)
	}
	if err := unix.Lstat(filepath.Join(rootfs.Lower[0], "bin/run"), &st); err != nil || st.Mode&0o7777 != 0o4755 || st.Gid != 8 {
		t.Errorf("set-uid file: mode %o gid %d, %v", st.Mode, st.Gid, err)
	}

	// The image goes, the snapshot's layers stay; a reopened store agrees.
	if err := s.Remove("hello:v1"); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Config{Root: s.root}); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Prepare("c1", "gone"); err != nil || !slices.Equal(again.Lower, rootfs.Lower) {
		t.Errorf("Prepare again = %v, %v", again, err)
	}
	if _, err := os.Stat(rootfs.Lower[1]); err != nil {
		t.Errorf("layer under a snapshot was swept: %v", err)
	}
	if err := s.Release("c1"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"layers", "blobs/sha256", "ingest", "snapshots"} {
		left, _ := os.ReadDir(filepath.Join(s.root, dir))
		for _, e := range left {
			if e.Name() != emptyLayer {
				t.Errorf("left behind: %s/%s", dir, e.Name())
			}
		}
	}
}

func TestPushPullSaveLoad(t *testing.T) {
	needRoot(t)
	server := httptest.NewServer(registry.New())
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"

	from := open(t)
	want := build(t, from, ref, layerTar(t, entry{name: "f", body: "content"}))
	if _, err := from.Push(t.Context(), ref, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	to := open(t)
	var seen Progress
	got, err := to.Pull(t.Context(), ref, TransferOptions{Progress: func(p Progress) { seen = p }})
	if err != nil || got.ID != want.ID || got.Manifest != want.Manifest {
		t.Fatalf("Pull = %+v, %v; want %s", got, err, want.ID)
	}
	if seen.Done != seen.Total || seen.Total != want.Layers[0].Size {
		t.Errorf("last progress %+v", seen)
	}
	if _, err := to.Pull(t.Context(), ref+"missing", TransferOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing tag: %v", err)
	}
	if _, err := open(t).Pull(t.Context(), ref, TransferOptions{Architecture: "s390x"}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "not for linux/s390x") {
		t.Errorf("another platform: %v", err)
	}
	if tags, err := to.Tags(t.Context(), strings.TrimSuffix(ref, ":1"), TransferOptions{}); err != nil || !slices.Equal(tags, []string{"1"}) {
		t.Errorf("tags %q, %v", tags, err)
	}

	var archive bytes.Buffer
	if err := to.Save(&archive, ref); err != nil {
		t.Fatal(err)
	}
	third := open(t)
	loaded, err := third.Load(t.Context(), &archive)
	if err != nil || len(loaded) != 1 || loaded[0].ID != want.ID || loaded[0].Tags[0] != ref {
		t.Fatalf("Load = %+v, %v", loaded, err)
	}
}

// What could not be read again is not kept: no image that is too large for a store makes
// it one that nobody can open.
func TestTooLargeToKeep(t *testing.T) {
	needRoot(t)
	s := open(t)
	b, err := s.NewBuild()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	config := ocispec.Image{Config: ocispec.ImageConfig{Labels: map[string]string{"l": strings.Repeat("x", MaxManifest)}}}
	if _, err := b.Commit(t.Context(), config, nil, Naming{Ref: "a:1"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Commit: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("List = %v, %v", all, err)
	}
}

// Nothing in a layer may reach a path outside it.
func TestHostileLayers(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("unchanged"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][]entry{
		"dot dot":              {{name: "../../../../../../../.." + canary, body: "x"}},
		"absolute":             {{name: canary, body: "x"}},
		"through a symlink":    {{name: "out", kind: tar.TypeSymlink, link: outside}, {name: "out/canary", body: "x"}},
		"relative symlink":     {{name: "out", kind: tar.TypeSymlink, link: strings.Repeat("../", 20) + outside}, {name: "out/canary", body: "x"}},
		"hard link to outside": {{name: "h", kind: tar.TypeLink, link: canary}, {name: "h", body: "x"}},
		"whiteout by symlink":  {{name: "out", kind: tar.TypeSymlink, link: outside}, {name: "out/.wh.canary"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, _, err := unpackStream(context.Background(), layerTar(t, entries...), 1, dir)
			got, readErr := os.ReadFile(canary)
			if readErr != nil || string(got) != "unchanged" {
				t.Fatalf("canary is %q (%v) after unpacking: %v", got, readErr, err)
			}
		})
	}
}

func TestCorruptLayerIsRefused(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "a:1", layerTar(t, entry{name: "f", body: "content"}))
	path := s.blobPath(img.Layers[0].Digest)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-9] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.layerPath(img.Chain(0))); err != nil {
		t.Fatal(err)
	}
	if err := s.unpackAll(t.Context(), img); err == nil {
		t.Fatal("a corrupt blob was unpacked")
	}
	if _, err := os.Stat(s.layerPath(img.Chain(0))); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a layer of a corrupt blob is visible: %v", err)
	}
}

// Whatever a layer says, nothing of it is outside its directory, and what it costs
// is in proportion.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte("not a tar"))
	for _, entries := range [][]entry{
		{{name: "a", body: "b"}, {name: "d/", kind: tar.TypeDir, mode: 0o755}, {name: "d/.wh.e"}, {name: "d/.wh..wh..opq"}},
		{{name: "../kept", body: "x"}, {name: "/../../kept", body: "x"}},
		{{name: "l", link: "..", kind: tar.TypeSymlink}, {name: "l/kept", body: "x"}, {name: "h", link: "../kept", kind: tar.TypeLink}, {name: "h", body: "x"}},
		{{name: "l", link: "l", kind: tar.TypeSymlink}, {name: "l/a", body: "x"}, {name: "f", kind: tar.TypeFifo}},
	} {
		raw, err := io.ReadAll(layerTar(f, entries...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(raw); err != nil {
			f.Fatal(err)
		}
		if err := z.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(packed.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		parent := t.TempDir()
		dir, kept := filepath.Join(parent, "layer"), filepath.Join(parent, "kept")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(kept, []byte("kept"), 0o600)); err != nil {
			t.Fatal(err)
		}
		frugal.Run(t, len(raw), func() {
			_, _, _ = unpackStream(context.Background(), bytes.NewReader(raw), int64(len(raw)), dir)
		})
		names, err := os.ReadDir(parent)
		if err != nil || len(names) != 2 {
			t.Fatalf("%v beside the layer: %v", names, err)
		}
		if is, err := os.ReadFile(kept); string(is) != "kept" {
			t.Fatalf("a file beside the layer is %q: %v", is, err)
		}
	})
}
