package image

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	digest "github.com/opencontainers/go-digest"
)

// What is damaged comes again by its digest, and is what it was, though its name has moved on
// in the registry; what has been put aside is counted, and goes with a prune.
func TestRefetch(t *testing.T) {
	needRoot(t)
	server := httptest.NewServer(registry.New())
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	publish := func(body string) Image {
		from := open(t)
		img := build(t, from, ref, layerTar(t, entry{name: "f", body: body}))
		if _, err := from.Push(t.Context(), ref, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		return img
	}
	was := publish("old")
	for name, blob := range map[string]digest.Digest{"layer": was.Layers[0].Digest, "config": digest.Digest(was.ID), "manifest": was.Manifest} {
		t.Run(name, func(t *testing.T) {
			publish("old")
			s := open(t)
			if _, err := s.Pull(t.Context(), ref, TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			publish("new")
			if err := flip(s.blobPath(blob)); err != nil {
				t.Fatal(err)
			}
			found, err := s.Check(t.Context(), CheckOptions{Repair: true})
			origins := found.Origins()
			if err != nil || len(origins) != 1 || origins[0].Name != ref || origins[0].Digest != was.Manifest {
				t.Fatalf("%+v, %v", found, err)
			}
			if blobs, bytes, err := s.Remains(); err != nil || blobs != 1 || bytes == 0 {
				t.Errorf("put aside: %d blobs, %d bytes, %v", blobs, bytes, err)
			}
			if err := s.Refetch(t.Context(), origins[0], TransferOptions{}); err != nil {
				t.Fatal(err)
			}
			if img, err := s.Get(ref); err != nil || img.Manifest != was.Manifest || len(img.Tags) != 1 {
				t.Errorf("the name is %+v, %v", img, err)
			}
			if after, err := s.Check(t.Context(), CheckOptions{}); err != nil || len(after.Damaged) != 0 {
				t.Errorf("after: %+v, %v", after, err)
			}
			if done, err := s.PruneRemains(); err != nil || done.Damaged != 1 || done.Bytes == 0 {
				t.Errorf("pruned: %+v, %v", done, err)
			}
			if _, err := os.Stat(filepath.Join(s.root, damageDir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is there still: %v", err)
			}
			gone := Origin{Name: ref, Digest: digest.FromString("gone")}
			if err := s.Refetch(t.Context(), gone, TransferOptions{}); !errors.Is(err, ErrNotFound) {
				t.Errorf("what the registry has no more: %v", err)
			}
		})
	}
}
