package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// What --filter of the prunes fits may go; the time is that of a day in May.
func TestPruneFilters(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	hours := func(n int) time.Time { return now.Add(-time.Duration(n) * time.Hour) }
	things := []struct {
		name   string
		made   time.Time
		labels map[string]string
	}{
		{"old", hours(48), map[string]string{"keep": "", "app": "web"}},
		{"new", hours(1), map[string]string{"app": "db"}},
		{"bare", hours(30), nil},
	}
	for filters, want := range map[string]string{
		"": "old new bare", "until=24h": "old bare", "until=24h until=36h": "old", "until=2026-05-03T07:00:00Z": "old bare", "until=1777888800": "old bare",
		"label=app": "old new", "label=app=web": "old", "label=app label=keep": "old", "label!=keep": "new bare", "label!=app=db": "old bare",
		"label!=keep label!=app=db": "bare", "label=app until=2h": "old",
	} {
		f, err := pruneFilters(strings.Fields(filters), now, ofImages...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, it := range things {
			if f.fits(it.made, it.labels) {
				got = append(got, it.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", filters, got, want)
		}
	}
	for _, wrong := range []string{"until", "until=", "until=yesterday", "name=x", "label", "dangling=maybe"} {
		if _, err := pruneFilters([]string{wrong}, now, ofImages...); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	if _, err := pruneFilters([]string{"until=1h"}, now, byLabel...); err == nil {
		t.Error("volumes are pruned by age")
	}
}

// What a prune takes of what builds remember, and what it refuses.
func TestPruning(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	g := &pruning{cache: true, known: byAge, filters: []string{"until=24h"}}
	f, err := g.check(now)
	if records, limit, before := g.layers(f, now); err != nil || records != image.MaxMemories || limit != image.MaxMemoryBytes || !before.Equal(now.Add(-24*time.Hour)) {
		t.Errorf("until: %d, %d, %v, %v", records, limit, before, err)
	}
	g = &pruning{cache: true, known: byAge, keepBytes: "2g"}
	f, err = g.check(now)
	if records, limit, before := g.layers(f, now); err != nil || records != image.MaxMemories || limit != 2<<30 || !before.IsZero() {
		t.Errorf("keep-storage: %d, %d, %v, %v", records, limit, before, err)
	}
	g = &pruning{cache: true, known: byAge}
	f, err = g.check(now)
	if records, limit, before := g.layers(f, now); err != nil || records != 0 || limit != 0 || !before.IsZero() {
		t.Errorf("all: %d, %d, %v, %v", records, limit, before, err)
	}
	system := &pruning{images: true, cache: true, ended: true, networks: true, known: byBoth, filters: []string{"label=app"}}
	if _, err := system.check(now); err != nil || system.cache {
		t.Errorf("layers have no labels, but go: %v", err)
	}
	images := &pruning{images: true, known: ofImages, filters: []string{"dangling=false"}}
	if _, err := images.check(now); err != nil || !images.all {
		t.Errorf("dangling=false is not all: %v", err)
	}
	for _, wrong := range []*pruning{
		{images: true, cache: true, known: ofImages, filters: []string{"label=app"}},
		{images: true, networks: true, volumes: true, known: byBoth, filters: []string{"until=1h"}},
		{cache: true, known: byAge, filters: []string{"label=app"}},
		{cache: true, known: byAge, keepBytes: "much"},
	} {
		if _, err := wrong.check(now); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

// A volume has its labels until it goes, and one that is there keeps its own.
func TestVolumeLabels(t *testing.T) {
	s := Settings{DataDir: t.TempDir()}
	if _, err := s.volumes(); err != nil {
		t.Skip(err)
	}
	for _, labels := range []map[string]string{{"app": "web", "by": "a, b"}, {"app": "other"}} {
		if err := s.makeVolume("data", labels); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.makeVolume("bare", nil); err != nil {
		t.Fatal(err)
	}
	all, err := s.volumes()
	if err != nil || len(all) != 2 || all[1].Labels.String() != "app=web,by=a, b" || all[1].Label("app") != "web" || len(all[0].Labels) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	fits, err := s.filterVolumes(t.Context(), all, []string{"label=app=web", "driver=local"})
	if err != nil || len(fits) != 1 || fits[0].Name != "data" {
		t.Errorf("%+v, %v", fits, err)
	}
	if err := s.dropVolume("data"); err != nil {
		t.Fatal(err)
	}
	if err := s.makeVolume("data", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := s.there("data"); err != nil || len(v.Labels) != 0 {
		t.Errorf("the next of that name has %+v, %v", v, err)
	}
}

// Networks are listed by what docker filters them by.
func TestNetworkFilters(t *testing.T) {
	noted, err := noteLabels([]string{"app=web", "Any name!"})
	if err != nil {
		t.Fatal(err)
	}
	mine := networkService("default", "mine", noted)
	mine.UID = "4711"
	made := networksOf([]*corev1.Service{mine}, nil)
	all := slices.DeleteFunc(slices.Clone(made), func(v namedNetwork) bool { return v.Name == "bridge" || v.Name == "none" })
	for filters, want := range map[string]string{
		"": "mine host", "name=in": "mine", "label=app": "mine", "label=app label=no": "", "type=builtin": "host", "type=custom": "mine", "dangling=true": "mine",
		"driver=host": "host", "scope=swarm": "", "id=47": "mine", "name=mi name=ho": "mine host",
	} {
		keep, err := networkFilters(strings.Fields(filters))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range all {
			if keep(v) {
				got = append(got, v.Name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", filters, got, want)
		}
	}
	if made[0].Label("Any name!") != "" || made[0].Label("app") != "web" || len(made[0].Labels) != 2 {
		t.Errorf("%+v", made[0].Labels)
	}
	for _, wrong := range []string{"name", "type=odd", "colour=red", "dangling=maybe"} {
		if _, err := networkFilters([]string{wrong}); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

// What a prune says, with damaged blobs only where there were some.
func TestPrunedText(t *testing.T) {
	for want, done := range map[string]image.Pruned{
		"removed 1 images and 2 build layers, 3 B at most":                  {Images: 1, Memories: 2, Bytes: 3},
		"removed 0 images, 0 build layers and 4 damaged blobs, 5 B at most": {Damaged: 4, Bytes: 5},
	} {
		if got := prunedText(done); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
