package resource

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

// Batches that are not worth compressing are gzip all the same, and can be read
// beside those that are.
func TestStoredMember(t *testing.T) {
	batches := [][]string{{"one event\n"}, {}, {"a", "b\n"}, {strings.Repeat("x", maxStored)}}
	var sent bytes.Buffer
	want := ""
	for _, batch := range batches {
		var frames [][]byte
		for _, frame := range batch {
			frames = append(frames, []byte(frame))
			want += frame
		}
		sent.Write(storedMember(frames))
		z := gzip.NewWriter(&sent)
		if _, err := z.Write([]byte("packed\n")); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		want += "packed\n"
	}
	z, err := gzip.NewReader(&sent)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil || string(got) != want {
		t.Errorf("read %d bytes, want %d: %v", len(got), len(want), err)
	}
}
