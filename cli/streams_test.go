package cli

import (
	"os"
	"testing"
)

// Whoever reads has gone when a write says so, and that is told once.
func TestReadBy(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	gone := make(chan struct{}, 1)
	r := &readBy{out, gone}
	if _, err := r.Write([]byte("x")); err != nil || len(gone) != 0 {
		t.Errorf("somebody reads: %v, %d", err, len(gone))
	}
	in.Close()
	for range 2 {
		if _, err := r.Write([]byte("x")); err == nil || len(gone) != 1 {
			t.Errorf("nobody reads: %v, %d", err, len(gone))
		}
	}
}
