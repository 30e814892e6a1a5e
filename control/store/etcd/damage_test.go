package etcd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
)

// written is a data directory with some acknowledged writes, and the value that
// the last of them carries.
func written(t *testing.T, writes int) (cfg etcd.EmbedConfig, last string) {
	t.Helper()
	cfg = etcd.EmbedConfig{Dir: t.TempDir()}
	server := start(t, cfg)
	for i := range writes {
		last = fmt.Sprintf("a value that is easy to find in the log, number %d", i)
		if _, err := server.Store().Create(t.Context(), fmt.Sprintf("/a/%03d", i), []byte(last), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg, last
}

// TestDamagedLog hurts the log the way disks do, with the database kept: either
// the server starts with every write, or it refuses with one sentence. A tail of
// zeros, as power cuts leave it, is refused by etcd unless whole sectors are zero.
func TestDamagedLog(t *testing.T) {
	const writes = 20
	for name, hurt := range map[string]struct {
		damage func(log []byte, last int) []byte // last: where the last value begins
		starts bool
		either bool // it depends on where the log's sectors end
	}{
		"TailCut":    {func(log []byte, last int) []byte { return log[:last+10] }, true, false},
		"TailZeroed": {func(log []byte, last int) []byte { clear(log[last+10:]); return log }, false, true},
		"BitFlipped": {func(log []byte, last int) []byte { log[last] ^= 1; return log }, false, false},
		"OldBitFlipped": {func(log []byte, _ int) []byte {
			log[bytes.Index(log, []byte("number 3"))] ^= 1
			return log
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, last := written(t, writes)
			rewriteLog(t, cfg.Dir, func(log []byte) []byte {
				at := bytes.Index(log, []byte(last))
				if at < 0 {
					t.Fatal("the last write is not in the log")
				}
				return hurt.damage(log, at)
			})
			server, err := etcd.Start(t.Context(), cfg)
			if err != nil {
				refusal(t, cfg.Dir, err, hurt.starts)
				return
			}
			defer server.Close()
			listing, err := server.Store().List(t.Context(), "/a/", store.ListOptions{})
			if err != nil || len(listing.Entries) != writes || !hurt.starts && !hurt.either {
				t.Errorf("started with %d of %d writes, %v", len(listing.Entries), writes, err)
			}
		})
	}
}

func refusal(t *testing.T, dir string, err error, starts bool) {
	t.Helper()
	if starts {
		t.Errorf("refused: %v", err)
	}
	for _, word := range []string{dir, "crc mismatch", "restore a backup"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not tell %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a sentence: %v", err)
	}
}

// rewriteLog changes the only log file in a data directory.
func rewriteLog(t *testing.T, dir string, change func([]byte) []byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	content, err := os.ReadFile(logs[0])
	if err = errors.Join(err, os.WriteFile(logs[0], change(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}
