package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
)

// A damaged manifest or config takes its image away and no other: the store opens, the
// rest is served, who asks for it is told, and it can be brought anew or removed.
func TestDamage(t *testing.T) {
	needRoot(t)
	for name, which := range map[string]func(Image) digest.Digest{
		"config": func(i Image) digest.Digest { return digest.Digest(i.ID) }, "manifest": func(i Image) digest.Digest { return i.Manifest },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			well := build(t, s, "well:1", layerTar(t, entry{name: "f", body: "well"}))
			ill := build(t, s, "ill:1", layerTar(t, entry{name: "f", body: "ill"}))
			hurt := which(ill)
			raw, err := os.ReadFile(s.blobPath(hurt))
			if err != nil {
				t.Fatal(err)
			}
			var whole [][]byte
			for _, d := range []digest.Digest{ill.Manifest, digest.Digest(ill.ID), ill.Layers[0].Digest} {
				blob, err := s.readBlob(d)
				if err != nil {
					t.Fatal(err)
				}
				whole = append(whole, blob)
			}
			flipped := append([]byte{}, raw...)
			flipped[len(flipped)/2] ^= 1
			if err := os.WriteFile(s.blobPath(hurt), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err = Open(Config{Root: s.root})
			if err != nil {
				t.Fatal(err)
			}
			if all, err := s.List(); err != nil || len(all) != 1 || all[0].ID != well.ID {
				t.Errorf("List: %v, %v", all, err)
			}
			if _, err := s.Prepare("c1", "well:1"); err != nil {
				t.Errorf("the other image: %v", err)
			}
			_, err = s.Get("ill:1")
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "sampan pull ill:1") {
				t.Errorf("the damaged image: %v", err)
			}
			if _, err := os.Stat(filepath.Join(s.root, damageDir, hurt.Encoded())); err != nil {
				t.Errorf("what was damaged is not kept: %v", err)
			}
			for _, blob := range whole { // as a pull does: what is not there is brought
				if _, err := s.putBlob(blob); err != nil {
					t.Fatalf("bring it anew: %v", err)
				}
			}
			if got, err := s.Get("ill:1"); err != nil || got.ID != ill.ID {
				t.Errorf("brought anew: %+v, %v", got, err)
			}
			if err := os.WriteFile(s.blobPath(hurt), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(Config{Root: s.root}); err != nil {
				t.Fatal(err)
			}
			if err := s.Remove("ill:1"); err != nil {
				t.Errorf("remove it: %v", err)
			}
			if _, err := s.Get("ill:1"); err == nil || strings.Contains(err.Error(), "damaged") {
				t.Errorf("it is still known: %v", err)
			}
		})
	}
}
