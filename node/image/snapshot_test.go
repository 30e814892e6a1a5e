package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A power cut may leave a snapshot's record empty: its container is dead, so its
// layers may go, it can be released, and made anew.
func TestSnapshotCutShort(t *testing.T) {
	needRoot(t)
	s := open(t)
	build(t, s, "hello:v1", layerTar(t, entry{name: "bin/run", body: "#!", mode: 0o755}))
	want, err := s.Prepare("c1", "hello:v1")
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(s.root, "snapshots", "c1", snapshotFile)
	if err := os.Truncate(record, 0); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Prepare("c1", "hello:v1"); err != nil || !slices.Equal(again.Lower, want.Lower) {
		t.Errorf("Prepare after a power cut = %v, %v; want %v", again, err, want)
	}
	if err := os.Truncate(record, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("hello:v1"); err != nil {
		t.Fatalf("remove the image: %v", err)
	}
	if _, err := os.Stat(want.Lower[0]); !os.IsNotExist(err) {
		t.Errorf("the layer of a dead container stays: %v", err)
	}
	if err := s.Release("c1"); err != nil {
		t.Errorf("release: %v", err)
	}
}

// A record that is damaged in another way may be that of a living container: every layer
// stays, and the store opens.
func TestSnapshotDamaged(t *testing.T) {
	needRoot(t)
	s := open(t)
	build(t, s, "hello:v1", layerTar(t, entry{name: "bin/run", body: "#!", mode: 0o755}))
	root, err := s.Prepare("c1", "hello:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "snapshots", "c1", snapshotFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(Config{Root: s.root})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Remove("hello:v1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root.Lower[0]); err != nil {
		t.Errorf("layer under a damaged snapshot was swept: %v", err)
	}
	if err := again.Release("c1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root.Lower[0]); err == nil {
		t.Error("the layer stays for ever")
	}
}
