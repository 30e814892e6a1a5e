package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
	"github.com/sampan-dev/sampan/control/store/storetest"
)

func start(t testing.TB, cfg etcd.EmbedConfig) *etcd.Server {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := etcd.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func TestExamEmbedded(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return start(t, etcd.EmbedConfig{Dir: t.TempDir()}).Store()
	})
}

// The same exam over a connection, under a prefix of its own.
func TestExamExternal(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		dir, err := os.MkdirTemp("", "etcd") // short: a socket's path has 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		socket := filepath.Join(dir, "socket")
		start(t, etcd.EmbedConfig{Dir: filepath.Join(dir, "data"), Socket: socket})
		s, err := etcd.Open(etcd.Config{Endpoints: []string{"unix://" + socket}, Prefix: "/tenant"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

// What was written is there after a restart, at the same revisions.
func TestRestart(t *testing.T) {
	cfg := etcd.EmbedConfig{Dir: t.TempDir()}
	server := start(t, cfg)
	rev, err := server.Store().Create(t.Context(), "/a/x", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	entry, now, err := start(t, cfg).Store().Get(t.Context(), "/a/x")
	if err != nil || string(entry.Value) != "1" || entry.Revision != rev || now != rev {
		t.Fatalf("after a restart: %+v at %d, %v", entry, now, err)
	}
}

// A server that comes back with a log of its first hundreds of writes elects
// itself only when raft has seen them all: etcd lets go of the first before.
func TestRestartWithLog(t *testing.T) {
	const writes, restarts = 150, 20
	cfg := etcd.EmbedConfig{Dir: t.TempDir()}
	server := start(t, cfg)
	for i := range writes {
		if _, err := server.Store().Create(t.Context(), "/a/"+strconv.Itoa(i), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for range restarts {
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		server = start(t, cfg)
	}
	if _, _, err := server.Store().Get(t.Context(), "/a/0"); err != nil {
		t.Error(err)
	}
}

func TestLocked(t *testing.T) {
	cfg := etcd.EmbedConfig{Dir: t.TempDir()}
	start(t, cfg)
	begin := time.Now()
	_, err := etcd.Start(t.Context(), cfg)
	if !errors.Is(err, etcd.ErrLocked) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())+" ") {
		t.Errorf("second server: %v", err)
	}
	if took := time.Since(begin); took > 20*time.Second { // it does not wait for the other to end
		t.Errorf("refused after %v", took)
	}
}

// Keys of one life share leases: many events cost few writes beyond their own.
func TestLeasesAreShared(t *testing.T) {
	s := start(t, etcd.EmbedConfig{Dir: t.TempDir()}).Store()
	const events = 50
	for i := range events {
		if _, err := s.Create(t.Context(), fmt.Sprintf("/events/%d", i), nil, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.LeaseCount(context.Background()); err != nil || n != 1 {
		t.Errorf("%d events take %d leases, %v", events, n, err)
	}
}

// A reader that comes late gets what waits for it at once, not write by write.
func TestWatchGathers(t *testing.T) {
	const writes = 100 // etcd's queue has room for more
	s := start(t, etcd.EmbedConfig{Dir: t.TempDir()}).Store()
	now, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(t.Context(), "/a/", now)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range writes {
		if _, err := s.Create(t.Context(), fmt.Sprintf("/a/%d", i), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	batch, err := w.Next(t.Context())
	if err != nil || len(batch) != writes {
		t.Fatalf("%d events at once, %v, want %d", len(batch), err, writes)
	}
	for i, event := range batch {
		if want := fmt.Sprintf("/a/%d", i); event.Entry.Key != want || event.Entry.Revision != now+int64(i)+1 {
			t.Errorf("event %d is of %q at %d, want %q at %d", i, event.Entry.Key, event.Entry.Revision, want, now+int64(i)+1)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	b.Run("Cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			dir := b.TempDir()
			b.StartTimer()
			server, err := etcd.Start(b.Context(), etcd.EmbedConfig{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := server.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("Again", func(b *testing.B) {
		dir := b.TempDir()
		for b.Loop() {
			server, err := etcd.Start(b.Context(), etcd.EmbedConfig{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := server.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}
