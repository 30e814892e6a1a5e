package rotate

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// reopener is an engine that opens a fresh log, as real ones do.
type reopener struct {
	*agenttest.Engine
	path string
	fail error
}

func (r *reopener) ReopenContainerLog(context.Context, *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	if r.fail != nil {
		return nil, r.fail
	}
	return &rt.ReopenContainerLogResponse{}, os.WriteFile(r.path, nil, 0o600)
}

func TestRotate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	old := []string{".20260101-000001.gz", ".20260101-000002.gz", ".20260101-000003", ".20260101-000004.tmp"}
	for _, suffix := range append(old, "") {
		if err := os.WriteFile(path+suffix, []byte("content of "+suffix), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	engine := &reopener{Engine: agenttest.New(), path: path}
	r := New(Config{Engine: engine, MaxSize: 10, MaxFiles: 4, Log: slog.New(slog.DiscardHandler)})
	if err := r.Rotate(t.Context(), "c", path); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	// Of four files one is new, one is just rotated, two are compressed.
	if len(names) != 4 || !slices.Contains(names, "0.log.20260101-000003.gz") || slices.Contains(names, "0.log.20260101-000001.gz") {
		t.Errorf("%v", names)
	}
	f, err := os.Open(path + ".20260101-000003.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(zip); err != nil || !strings.Contains(string(data), "000003") {
		t.Errorf("%q %v", data, err)
	}
}

func TestALogThatCannotBeReopenedKeepsItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := New(Config{Engine: &reopener{path: path, fail: errors.New("no")}, MaxSize: 1, MaxFiles: 2, Log: slog.New(slog.DiscardHandler)})
	if err := r.Rotate(t.Context(), "c", path); err == nil {
		t.Error("no error")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("%q %v", data, err)
	}
}
