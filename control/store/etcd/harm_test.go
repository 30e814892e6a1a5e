package etcd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
)

// harmed is how many writes the directory has that the tests below damage.
const harmed = 40

// crashed is a data directory as a kill leaves it: the database is behind the log.
func crashed(t *testing.T) string {
	t.Helper()
	running := t.TempDir()
	server := start(t, etcd.EmbedConfig{Dir: running})
	for i := range harmed {
		value := fmt.Sprintf("write number %d, %s", i, strings.Repeat("and so on ", i*7%90))
		if _, err := server.Store().Create(t.Context(), fmt.Sprintf("/a/%03d", i), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	// Most of what etcd has laid out for the log is of no use here, and would be copied often.
	rewriteLog(t, dir, func(log []byte) []byte { return log[:len(bytes.TrimRight(log, "\x00"))+64<<10] })
	return dir
}

// begun starts a server on a copy of a damaged directory. It has every write from the
// first to some, or refuses with a sentence; said is what it told meanwhile.
func begun(t *testing.T, dir string) (writes int, said string, err error) {
	t.Helper()
	var log bytes.Buffer
	server, err := etcd.Start(t.Context(), etcd.EmbedConfig{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "restore") || strings.Contains(err.Error(), "\n") {
			t.Errorf("not a sentence that says where and what to do: %v", err)
		}
		return 0, log.String(), err
	}
	defer server.Close()
	listing, err := server.Store().List(t.Context(), "/a/", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, entry := range listing.Entries {
		if want := fmt.Sprintf("/a/%03d", i); entry.Key != want || !bytes.HasPrefix(entry.Value, fmt.Appendf(nil, "write number %d,", i)) {
			t.Errorf("entry %d is %q: %q", i, entry.Key, entry.Value)
		}
	}
	// What is written now must be there after another start.
	if _, err := server.Store().Create(t.Context(), "/b", []byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.Store().Get(t.Context(), "/b"); err != nil {
		t.Errorf("a new write is not there: %v", err)
	}
	return len(listing.Entries), log.String(), nil
}

// TestLengthFlipped flips bits of the length of an old record, which etcd
// alone takes for the log's end: nothing behind it is lost in silence.
func TestLengthFlipped(t *testing.T) {
	dir := crashed(t)
	frames := framesOf(t, dir)
	for bit := 0; bit < 64; bit += 3 {
		at := frames[len(frames)/2] + bit/8
		copied := damage(t, dir, func(log []byte) []byte { log[at] ^= 1 << (bit % 8); return log })
		writes, _, err := begun(t, copied)
		if err == nil && writes != harmed {
			t.Errorf("bit %d of the length at byte %d: started with %d of %d writes", bit, at, writes, harmed)
		}
	}
}

// TestSectorLost zeroes a sector in the middle of the log.
func TestSectorLost(t *testing.T) {
	dir := crashed(t)
	frames := framesOf(t, dir)
	at := frames[len(frames)/2] / 512 * 512
	_, _, err := begun(t, damage(t, dir, func(log []byte) []byte { clear(log[at : at+512]); return log }))
	if err == nil || !strings.Contains(err.Error(), "acknowledged") || !strings.Contains(err.Error(), "is damaged at byte") {
		t.Errorf("a sector of zeros at byte %d: %v", at, err)
	}
}

// TestTailLost cuts and zeroes the log's end, as power cuts do: the server starts, with
// the first writes and without a gap among them, and says so.
func TestTailLost(t *testing.T) {
	dir := crashed(t)
	frames := framesOf(t, dir)
	used := frames[len(frames)-1] // the end of the last record
	for _, lost := range []int{1, 40, 64, 512, 1000, 4096, 8192} {
		from := max(used-lost, 0)
		for name, hurt := range map[string]func([]byte) []byte{
			"cut":    func(log []byte) []byte { return log[:from] },
			"zeroed": func(log []byte) []byte { clear(log[from:]); return log },
		} {
			writes, said, err := begun(t, damage(t, dir, hurt))
			if err != nil && lost > 8 {
				t.Errorf("%d bytes %s: %v", lost, name, err)
			}
			if err == nil && writes < harmed && !whole(frames, from) && !strings.Contains(said, "torn") {
				t.Errorf("%d bytes %s: %d of %d writes, and not a word", lost, name, writes, harmed)
			}
		}
	}
}

// TestDatabaseHarmed damages the database in ways that are no business of the log's.
func TestDatabaseHarmed(t *testing.T) {
	dir := crashed(t)
	db := func(dir string) string { return filepath.Join(dir, "member", "snap", "db") }
	for name, hurt := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"Cut":       {func(dir string) error { return os.Truncate(db(dir), 3*4096) }, "cut short at byte 12288"},
		"Emptied":   {func(dir string) error { return os.Truncate(db(dir), 0) }, ""},
		"Scrambled": {func(dir string) error { return scramble(db(dir)) }, "restore a backup"},
		"NoLog":     {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "member", "wal")) }, "has no log"},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			if err := errors.Join(os.CopyFS(copied, os.DirFS(dir)), hurt.damage(copied)); err != nil {
				t.Fatal(err)
			}
			writes, _, err := begun(t, copied)
			if err == nil && (hurt.want != "" || writes != harmed) || err != nil && !strings.Contains(err.Error(), hurt.want) {
				t.Errorf("%d writes, %v, want %q", writes, err, hurt.want)
			}
		})
	}
}

// scramble writes over all of the database but its first pages.
func scramble(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i := 2 * os.Getpagesize(); i < len(content); i++ {
		content[i] ^= 0xa5
	}
	return os.WriteFile(path, content, 0o600)
}

// framesOf is where the records of the only log file begin, and where the last one ends.
func framesOf(t *testing.T, dir string) (frames []int) {
	t.Helper()
	rewriteLog(t, dir, func(log []byte) []byte {
		for at := 0; ; {
			frames = append(frames, at)
			field := binary.LittleEndian.Uint64(log[at:])
			if field == 0 {
				return log
			}
			at += 8 + int(field&(1<<56-1)+field>>56&7)
		}
	})
	return frames
}

// whole says whether nothing but whole records were lost: nobody can tell.
func whole(frames []int, from int) bool {
	for _, at := range frames {
		if from <= at && at < from+8 {
			return true
		}
	}
	return false
}

// damage is a copy of a directory with another log.
func damage(t *testing.T, dir string, change func([]byte) []byte) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	rewriteLog(t, copied, change)
	return copied
}
