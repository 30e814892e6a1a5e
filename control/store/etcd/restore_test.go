package etcd_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
)

// TestRestore backs a store up while it is written to, and restores it elsewhere: what
// there was then is there, what came later is not, and no revision comes twice.
func TestRestore(t *testing.T) {
	server := start(t, etcd.EmbedConfig{Dir: t.TempDir()})
	s := server.Store()
	put := func(s store.Store, key string) int64 {
		t.Helper()
		revision, err := s.Create(t.Context(), key, []byte("value of "+key), 0)
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	revisions := map[string]int64{}
	for i := range 100 {
		key := fmt.Sprintf("/a/%03d", i)
		revisions[key] = put(s, key)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(backup)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Backup(t.Context(), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	seen := put(s, "/a/later")

	dir := filepath.Join(t.TempDir(), "etcd")
	if err := etcd.Restore(t.Context(), etcd.EmbedConfig{Dir: dir}, backup); err != nil {
		t.Fatal(err)
	}
	restored := start(t, etcd.EmbedConfig{Dir: dir}).Store()
	listing, err := restored.List(t.Context(), "/a/", store.ListOptions{})
	if err != nil || len(listing.Entries) != len(revisions) {
		t.Fatalf("%d entries, %v", len(listing.Entries), err)
	}
	for _, e := range listing.Entries {
		if revisions[e.Key] != e.Revision || string(e.Value) != "value of "+e.Key {
			t.Errorf("%+v, want revision %d", e, revisions[e.Key])
		}
	}
	if now := put(restored, "/a/later"); now <= seen || listing.Revision <= seen {
		t.Errorf("a write has revision %d and a list %d, after a client had seen %d", now, listing.Revision, seen)
	}
	// Who has seen what came after the backup is told to list anew.
	watcher, err := restored.Watch(t.Context(), "/a/", seen)
	if err == nil {
		_, err = watcher.Next(t.Context())
	}
	if !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch from %d begins with %v", seen, err)
	}
}

// TestRestoreRefuses what is not a whole backup.
func TestRestoreRefuses(t *testing.T) {
	server := start(t, etcd.EmbedConfig{Dir: t.TempDir()})
	var whole strings.Builder
	if err := server.Backup(t.Context(), &whole); err != nil {
		t.Fatal(err)
	}
	text := whole.String()
	for name, bad := range map[string]string{
		"cut": text[:len(text)/2+1], "empty": "", "without its checksum": text[:len(text)-32], "changed": text[:5000] + "x" + text[5001:],
	} {
		path := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "etcd")
		if err := etcd.Restore(t.Context(), etcd.EmbedConfig{Dir: dir}, path); err == nil {
			t.Errorf("%s: restored", name)
		} else if _, there := os.Stat(dir); there == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
