package image

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestIndexDamaged spoils the file that names the images: its copy takes its place, and
// where that is spoilt too the store refuses, with every blob where it was.
func TestIndexDamaged(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"cut":    func(path string) error { return os.Truncate(path, 60) },
		"empty":  func(path string) error { return os.Truncate(path, 0) },
		"zeroed": func(path string) error { return os.WriteFile(path, make([]byte, 300), 0o600) },
		"gone":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			img := build(t, s, "docker.io/library/kept:1", layerTar(t, entry{name: "one", body: "1"}))
			if err := spoil(s.indexPath()); err != nil {
				t.Fatal(err)
			}
			again, err := Open(Config{Root: s.root})
			if err != nil {
				t.Fatal(err)
			}
			if found, err := again.Get("kept:1"); err != nil || found.ID != img.ID {
				t.Errorf("with the index %s: %+v, %v", name, found, err)
			}
			if err := errors.Join(spoil(s.indexPath()), spoil(s.copyPath())); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Config{Root: s.root}); err == nil || !strings.Contains(err.Error(), "move the directory away") {
				t.Errorf("with index and copy %s: %v", name, err)
			}
			if _, err := os.Stat(s.blobPath(img.Manifest)); err != nil {
				t.Error("a blob was removed as garbage: ", err)
			}
		})
	}
}
