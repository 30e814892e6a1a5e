package image

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"
)

// keptOf makes the kept snapshot of a pod's only container.
func keptOf(t *testing.T, s *Store, pod string) string {
	t.Helper()
	key := KeptPrefix("default", pod, "word") + "main"
	if _, err := s.PrepareKept(key, "hello:v1"); err != nil {
		t.Fatal(err)
	}
	return key
}

// The image that a kept snapshot stands on stays with it, though its name is another's
// by now and whoever removes images has removed it.
func TestKeptImageStays(t *testing.T) {
	needRoot(t)
	s := open(t)
	build(t, s, "hello:v1", layerTar(t, entry{name: "bin/run", body: "#!", mode: 0o755}))
	was, err := s.Get("hello:v1")
	if err != nil {
		t.Fatal(err)
	}
	key := keptOf(t, s, "a")
	build(t, s, "hello:v1", layerTar(t, entry{name: "bin/run", body: "#!other", mode: 0o755}))
	if img, err := s.KeptImage(key); err != nil || img.ID != was.ID {
		t.Fatalf("KeptImage = %s, %v, want %s", img.ID, err, was.ID)
	}
	if err := s.Remove(was.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(was.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is among the images though it was removed: %v", err)
	}
	if img, err := s.KeptImage(key); err != nil || img.ID != was.ID {
		t.Errorf("KeptImage after its removal = %s, %v", img.ID, err)
	}
	if _, err := s.PrepareKept(key, was.ID); err != nil {
		t.Errorf("a container of it: %v", err)
	}
	if err := errors.Join(s.Release(key), s.Remove(was.ID)); err != nil {
		t.Fatal(err)
	}
	if s.hasBlob(was.Manifest) {
		t.Error("the image stays though nobody stands on it")
	}
	if _, err := s.KeptImage(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("KeptImage of what is not kept: %v", err)
	}
}

// What is kept goes with its pod or by a prune, but not while somebody holds it or has
// just made it.
func TestKeptGo(t *testing.T) {
	needRoot(t)
	s := open(t)
	build(t, s, "hello:v1", layerTar(t, entry{name: "bin/run", body: "#!", mode: 0o755}))
	held, free, other := keptOf(t, s, "held"), keptOf(t, s, "free"), keptOf(t, s, "other")
	for _, who := range []string{"winner", "loser"} {
		if err := s.Hold(held, who); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.LetGo(held, "loser"); err != nil { // the other holds it still
		t.Fatal(err)
	}
	if err := s.Hold(KeptPrefix("default", "none", "word")+"main", "winner"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("to hold what there is not: %v", err)
	}
	for _, key := range []string{held, free} {
		if err := s.ReleaseKept(strings.TrimSuffix(key, "main")); err != nil {
			t.Error(err)
		}
	}
	left := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		if got, err := s.Kept(""); err != nil || !slices.Equal(got, want) {
			t.Errorf("kept are %v, %v; want %v", got, err, want)
		}
	}
	left(held, other)
	nobody := func(string) bool { return false }
	if err := s.PruneKept(time.Now().Add(-time.Minute), nobody); err != nil {
		t.Error(err)
	}
	left(held, other)
	if err := s.PruneKept(time.Now().Add(time.Minute), func(key string) bool { return key == other }); err != nil {
		t.Error(err)
	}
	left(other)
	if err := s.ReleaseKept("k"); !errors.Is(err, ErrInvalid) {
		t.Errorf("to release what is not kept: %v", err)
	}
}

// Whoever held a snapshot holds it no longer when a container has begun with it.
func TestKeptBegins(t *testing.T) {
	needRoot(t)
	s := open(t)
	build(t, s, "hello:v1", layerTar(t, entry{name: "bin/run", body: "#!", mode: 0o755}))
	key := keptOf(t, s, "next")
	for _, who := range []string{"a", "b"} {
		if err := s.Hold(key, who); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.PrepareKept(key, "hello:v1"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.LetGo(key, "a"), s.ReleaseKept(strings.TrimSuffix(key, "main"))); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Kept(""); err != nil || len(got) > 0 {
		t.Errorf("kept are %v, %v", got, err)
	}
}
