package resource

import (
	"bytes"
	"errors"
	"testing"
)

// lengths notes how much is written at once.
type lengths struct {
	bytes.Buffer
	each []int
	full int // bytes after which writing fails; 0: never
}

func (w *lengths) Write(p []byte) (int, error) {
	if w.full > 0 && w.Len()+len(p) > w.full {
		return 0, errors.New("gone")
	}
	w.each = append(w.each, len(p))
	return w.Buffer.Write(p)
}

// Whatever the sizes of the pieces, all is written, in order, and little at a time
// only at the end.
func TestWriteJoined(t *testing.T) {
	for _, sizes := range [][]int{{}, {0}, {5}, {joined + 1}, {1, joined}, {joined, 1}, {1, joined - 1}, {3, 2 * joined, 4, 0, 5}, {10_000, 60_000, 10_000, 60_000}} {
		var pieces [][]byte
		var want []byte
		for i, n := range sizes {
			pieces = append(pieces, bytes.Repeat([]byte{byte('a' + i)}, n))
			want = append(want, pieces[i]...)
		}
		w := &lengths{}
		if err := writeJoined(w, pieces); err != nil || !bytes.Equal(w.Bytes(), want) {
			t.Errorf("pieces of %v: %v, %d of %d bytes", sizes, err, w.Len(), len(want))
		}
	}
	small := make([][]byte, 10_000)
	for i := range small {
		small[i] = bytes.Repeat([]byte{'x'}, 100)
	}
	w := &lengths{}
	if err := writeJoined(w, small); err != nil || len(w.each) != (10_000*100+joined-1)/(joined-joined%100) {
		t.Errorf("%d small pieces in %d writes: %v", len(small), len(w.each), err)
	}
	if err := writeJoined(&lengths{full: 3 * joined}, small); err == nil {
		t.Error("a client that has gone is not noticed")
	}
}
