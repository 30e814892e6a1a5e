package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Of the keepers of many versions the newest stay.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"d", "a", "c", ".new-1", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o555); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(int64(1000+i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"[.new-1 b c]", "[.new-1 b c]"} {
		if err := forget(dir, 3); err != nil {
			t.Fatal(err)
		}
		var got []string
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("left %v, want %s: %v", got, want, err)
		}
	}
}
