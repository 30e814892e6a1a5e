package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// FuzzRead: whatever a container's log has become, by its own lines or a disk's fault,
// reading it ends, gives no more than was asked for, and nothing that is not in it.
func FuzzRead(f *testing.F) {
	f.Add([]byte(sample), int64(-1), int64(-1), false)
	f.Add([]byte(sample), int64(2), int64(7), true)
	f.Add([]byte("\x00\x00\x00\n2026 stdout F \n  \n P \n2026-01-01T00:00:01Z stdout P"), int64(3), int64(0), true)
	f.Add(bytes.Repeat([]byte("2026-01-01T00:00:01Z stdout P x\n"), 4_000), int64(5_000), int64(-1), false)
	path := filepath.Join(f.TempDir(), "0.log")
	f.Fuzz(func(t *testing.T, log []byte, tail, limit int64, stamps bool) {
		if err := os.WriteFile(path, log, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		frugal.Run(t, len(log), func() {
			o := Options{Tail: tail, Limit: limit, Timestamps: stamps, Since: time.Unix(1, 0)}
			if err := Read(t.Context(), Log{Path: path}, o, &out); err != nil {
				t.Fatal(err)
			}
		})
		if limit >= 0 && int64(out.Len()) > limit || tail == 0 && out.Len() > 0 || out.Len() > len(log) {
			t.Errorf("%d bytes of a log of %d, tail %d, limit %d", out.Len(), len(log), tail, limit)
		}
	})
}
