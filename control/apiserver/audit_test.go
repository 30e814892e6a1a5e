package apiserver

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Full files are kept under numbers, the newest first, and the oldest goes.
func TestAuditRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := openAudit(path, slog.New(slog.DiscardHandler))
	must(t, err)
	a.max = 1000
	const lines = 60
	for i := range lines {
		a.write(&auditLine{AuditID: fmt.Sprintf("id-%d.", i)})
	}
	must(t, a.close())
	files, err := filepath.Glob(path + "*")
	must(t, err)
	if len(files) != maxAuditFiles {
		t.Errorf("files kept: %q", files)
	}
	next := lines
	for i := range files {
		name := path
		if i > 0 {
			name = fmt.Sprintf("%s.%d", path, i)
		}
		raw, err := os.ReadFile(name)
		must(t, err)
		if len(raw) > 1000 {
			t.Errorf("%s has %d bytes", name, len(raw))
		}
		n := strings.Count(string(raw), "\n")
		if n == 0 || !strings.Contains(string(raw), fmt.Sprintf("id-%d.", next-1)) || !strings.Contains(string(raw), fmt.Sprintf("id-%d.", next-n)) {
			t.Errorf("%s does not end with line %d: %s", name, next-1, raw)
		}
		next -= n
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", name, info.Mode().Perm())
		}
	}
}
