package cli

import (
	"fmt"
	"io"
	"strings"
)

// The keys that leave a terminal, unless somebody has chosen others: Ctrl-P Ctrl-Q.
const usualKeys = "ctrl-p,ctrl-q"

// controlled are the keys that Ctrl makes others of.
const controlled = `@abcdefghijklmnopqrstuvwxyz[\]^_`

// parseKeys reads docker's words for keys, with commas between them: a letter or other
// character, or ctrl- and one of a-z @ [ \ ] ^ _.
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		text = usualKeys
	}
	var keys []byte
	for word := range strings.SplitSeq(text, ",") {
		key, with := strings.CutPrefix(strings.ToLower(word), "ctrl-")
		switch {
		case !with && len(word) == 1:
			keys = append(keys, word[0])
		case !with && word == "DEL":
			keys = append(keys, 0x7f)
		case with && len(key) == 1 && strings.IndexByte(controlled, key[0]) >= 0:
			keys = append(keys, strings.ToUpper(key)[0]&0x1f) // as terminals send them
		default:
			return nil, fmt.Errorf("--detach-keys %q: %q is no key: want characters, or ctrl- and a letter, such as %s", text, word, usualKeys)
		}
	}
	return keys, nil
}

// detachKeys watches what is typed for keys that leave.
type detachKeys struct {
	r    io.Reader
	keys []byte
	// seen is how many of them have been typed in a row, and are held back.
	seen  int
	leave func()
}

// Read passes everything on, but holds the first of the keys back until it is known
// what follows them.
func (d *detachKeys) Read(p []byte) (int, error) {
	room := len(p) - d.seen
	if room < 1 {
		return 0, io.ErrShortBuffer
	}
	typed := make([]byte, min(room, 4096))
	n, err := d.r.Read(typed)
	kept := p[:0]
	for _, key := range typed[:n] {
		if key == d.keys[d.seen] {
			if d.seen++; d.seen == len(d.keys) {
				d.leave()
				return len(kept), io.EOF
			}
			continue
		}
		kept = append(kept, d.keys[:d.seen]...)
		if d.seen = 0; key == d.keys[0] {
			d.seen = 1
			continue
		}
		kept = append(kept, key)
	}
	if err != nil {
		kept = append(kept, d.keys[:d.seen]...)
		d.seen = 0
	}
	return len(kept), err
}
