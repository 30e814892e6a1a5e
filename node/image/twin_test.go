package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Another tool has pushed the same image with layers compressed in its own way:
// two manifests, one image.
func TestOneImageOfTwoManifests(t *testing.T) {
	needRoot(t)
	s := open(t)
	ours := build(t, s, "localhost:5000/ours:1", layerTar(t, entry{name: "f", body: "content"}))
	m, err := s.manifest(ours.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	m.Layers = []ocispec.Descriptor{recompressed(t, s, m.Layers[0])}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := s.Receive(t.Context(), "localhost:5000/theirs", "2", raw)
	if err != nil || theirs == ours.Manifest {
		t.Fatalf("Receive = %s, %v; want a second manifest", theirs, err)
	}
	for ref, want := range map[string]digest.Digest{
		"localhost:5000/ours:1": ours.Manifest, "localhost:5000/theirs:2": theirs,
		"localhost:5000/theirs@" + theirs.String(): theirs, ours.ID: ours.Manifest, ours.ID[7:19]: ours.Manifest,
	} {
		got, err := s.Get(ref)
		if err != nil || got.ID != ours.ID || got.Manifest != want || len(got.Tags) != 2 || len(got.Digests) != 2 {
			t.Errorf("Get(%s) = %+v, %v; want manifest %s", ref, got, err, want)
		}
		if _, err := s.Prepare("c", ref); err != nil {
			t.Errorf("a container of %s: %v", ref, err)
		}
		if err := s.Release("c"); err != nil {
			t.Error(err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 1 {
		t.Errorf("List = %+v, %v; want one image", all, err)
	}
	if err := s.Remove("localhost:5000/theirs:2"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(ours.ID); err != nil || !slices.Equal(got.Tags, []string{"localhost:5000/ours:1"}) {
		t.Errorf("after one name is removed: %+v, %v", got, err)
	}
	if _, err := s.Receive(t.Context(), "localhost:5000/theirs", "2", raw); err != nil {
		t.Fatal(err)
	}
	// A digest means the names of its repository, and no other's.
	if err := errors.Join(s.Tag("localhost:5000/theirs:2", "localhost:5000/copy:3"), s.Remove("localhost:5000/theirs@"+theirs.String())); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(ours.ID); err != nil || !slices.Equal(slices.Sorted(slices.Values(got.Tags)), []string{"localhost:5000/copy:3", "localhost:5000/ours:1"}) {
		t.Errorf("after one digest is removed: %+v, %v", got, err)
	}
	if err := s.Remove(ours.ID); err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("after its ID is removed: %+v, %v", all, err)
	}
}

// recompressed stores a layer's content in another compression.
func recompressed(t *testing.T, s *Store, layer ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	f, err := s.openBlob(layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	z.Comment = "another tool"
	if _, err := io.Copy(z, plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	u, err := s.NewUpload()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	d := digest.FromBytes(packed.Bytes())
	if _, err := u.Write(packed.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit("localhost:5000/theirs", d); err != nil {
		t.Fatal(err)
	}
	layer.Digest, layer.Size = d, int64(packed.Len())
	return layer
}
