package resource

import (
	"io"
	"sync"
)

// joined is how many bytes of small pieces are written at once. net/http sends what
// comes in pieces smaller than 4 KiB as frames of that size, and hands each from one
// goroutine to another and back; one large piece is handed over once.
const joined = 64 << 10

// joiners are buffers to use again, of joined bytes each.
var joiners = sync.Pool{New: func() any {
	b := make([]byte, 0, joined)
	return &b
}}

// writeJoined writes pieces one after the other, many at once.
func writeJoined(w io.Writer, pieces [][]byte) error {
	if len(pieces) == 1 {
		_, err := w.Write(pieces[0])
		return err
	}
	buffer := joiners.Get().(*[]byte)
	defer joiners.Put(buffer)
	b := (*buffer)[:0]
	for _, p := range pieces {
		if len(b)+len(p) > joined && len(b) > 0 {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
		if len(p) > joined {
			if _, err := w.Write(p); err != nil {
				return err
			}
			continue
		}
		b = append(b, p...)
	}
	if len(b) == 0 {
		return nil
	}
	_, err := w.Write(b)
	return err
}
