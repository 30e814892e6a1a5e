package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestWriteReplacesWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	contents := []string{strings.Repeat("a", 8192), strings.Repeat("b", 16384)}
	if err := Write(path, []byte(contents[0]), 0o640); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := WriteVolatile(path, []byte(contents[i%2]), 0o640); err != nil {
				t.Error(err)
			}
		})
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if s := string(got); s != contents[0] && s != contents[1] {
			t.Fatalf("read a part: %d bytes", len(got))
		}
	}
	wg.Wait()
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v, error %v; want 0640", st.Mode(), err)
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 1 {
		t.Fatalf("temporary files stayed: %v", entries)
	}
}

func TestJSONAndRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "v.json")
	var got map[string]int
	if err := ReadJSON(path, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: %v", err)
	}
	if err := WriteJSON(path, map[string]int{"x": 3}); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(path, &got); err != nil || got["x"] != 3 {
		t.Fatalf("read back %v, %v", got, err)
	}
	for range 2 { // the second time it is already gone
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(dir, ".v.json.123"+Suffix)
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Clean left %q: %v", left, err)
	}
}

func TestWriteSoon(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	for _, content := range []string{"first", "second and longer"} {
		if err := WriteSoon(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("%q, %v; want %q", got, err, content)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, error %v; want 0640", st.Mode(), err)
	}
	if err := WriteSoon(filepath.Join(dir, "missing/new"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("temporary files stayed: %v", entries)
	}
}
