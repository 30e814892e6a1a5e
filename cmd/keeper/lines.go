package main

import (
	"bytes"
	"time"
)

// maxLine is where a line is cut into partial entries, as every CRI runtime does.
const maxLine = 16 << 10

// lineLog turns a stream into entries of a CRI log file:
//
//	2016-10-06T00:17:09.669794202Z stdout F the line
//
// with P instead of F for a piece of a line that goes on.
type lineLog struct {
	stream  string
	partial []byte
}

// add returns the entries that b completes, and keeps the rest of b.
func (l *lineLog) add(b []byte, now time.Time) []byte {
	var out []byte
	for len(b) > 0 {
		room := maxLine - len(l.partial)
		end := bytes.IndexByte(b, '\n')
		if end >= 0 && end <= room {
			out = l.entry(out, now, 'F', b[:end])
			b = b[end+1:]
			continue
		}
		if len(b) < room {
			l.partial = append(l.partial, b...)
			return out
		}
		out = l.entry(out, now, 'P', b[:room])
		b = b[room:]
	}
	return out
}

// end returns the last line when it has no newline: a piece of a line, so that
// whoever reads the log gets exactly what was printed.
func (l *lineLog) end(now time.Time) []byte {
	if len(l.partial) == 0 {
		return nil
	}
	return l.entry(nil, now, 'P', nil)
}

func (l *lineLog) entry(out []byte, now time.Time, tag byte, rest []byte) []byte {
	out = now.UTC().AppendFormat(out, "2006-01-02T15:04:05.000000000Z07:00")
	out = append(out, ' ')
	out = append(out, l.stream...)
	out = append(out, ' ', tag, ' ')
	out = append(out, l.partial...)
	out = append(out, rest...)
	l.partial = nil
	return append(out, '\n')
}
