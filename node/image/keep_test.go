package image

import "testing"

// An image that is pinned survives whoever clears up, under its name also as another
// image, until it is let go.
func TestKeep(t *testing.T) {
	s := open(t)
	first := build(t, s, "docker.io/library/kept:1", layerTar(t, entry{name: "one", body: "1"}))
	if err := s.Tag("kept:1", "other:1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep("kept:1", true); err != nil {
		t.Fatal(err)
	}
	pinned := func(ref string) bool {
		t.Helper()
		img, err := s.Get(ref)
		if err != nil {
			t.Fatal(ref, err)
		}
		return img.Pinned
	}
	if !pinned("kept:1") || !pinned("other:1") || !pinned(first.ID) {
		t.Error("the image is not pinned by one of its names")
	}
	if done, err := s.Prune(true, func(Image) bool { return false }); err != nil || done.Images != 0 {
		t.Errorf("pruned %+v, %v: none fits", done, err)
	}
	prune := func(want int) {
		t.Helper()
		done, err := s.Prune(true, nil)
		if err != nil || done.Images != want {
			t.Errorf("pruned %+v, %v; want %d", done, err, want)
		}
	}
	prune(0)
	second := build(t, s, "docker.io/library/kept:1", layerTar(t, entry{name: "two", body: "2"}))
	if !pinned("kept:1") || pinned("other:1") {
		t.Error("the pin did not go with its name")
	}
	prune(1)
	again, err := Open(Config{Root: s.root})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := again.List(); err != nil || len(list) != 1 || list[0].ID != second.ID || !list[0].Pinned {
		t.Errorf("left: %+v, %v", list, err)
	}
	if err := s.Keep(second.ID, false); err != nil {
		t.Fatal(err)
	}
	if pinned("kept:1") {
		t.Error("it is pinned still")
	}
	prune(1)
	if err := s.Keep("kept:1", true); err == nil {
		t.Error("an image that isn't there was pinned")
	}
}
