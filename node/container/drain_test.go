package container

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// What lies in the pipe when the time to wait for more is over is not lost, though
// somebody still has the pipe open.
func TestLateOutputIsKept(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("0123456789abcdef", 4000)
	if _, err := w.WriteString(want); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	copyOut(&got, r)
	if got.String() != want {
		t.Errorf("%d of %d bytes", got.Len(), len(want))
	}
}
