package cli

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// maxStamp is how long the time at the beginning of a log's line may be, in bytes.
const maxStamp = 64

// errLate ends a log whose next line is later than --until.
var errLate = errors.New("the rest is later")

// ending is where a log goes that ends with --until.
func (l logQuery) ending(to io.Writer) io.Writer {
	if l.until.IsZero() {
		return to
	}
	return &untilWriter{to: to, until: l.until, keep: l.timestamps}
}

// untilWriter passes on the lines of a log that begin with a time not later than
// until, and fails with errLate at the first that is. keep leaves the times in.
type untilWriter struct {
	to    io.Writer
	until time.Time
	keep  bool
	// stamp is the beginning of a line whose time is not whole yet; within says that
	// we are behind it.
	stamp  []byte
	within bool
}

// Write implements io.Writer.
func (u *untilWriter) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		if u.within {
			line, rest, ended := bytes.Cut(p, []byte("\n"))
			if ended {
				line = p[:len(line)+1]
			}
			if _, err := u.to.Write(line); err != nil {
				return 0, err
			}
			p, u.within = rest, !ended
			continue
		}
		stamp, rest, whole := bytes.Cut(p, []byte(" "))
		u.stamp = append(u.stamp, stamp...)
		if len(u.stamp) > maxStamp {
			return 0, errors.New("a line of the log does not begin with a time")
		}
		if p = rest; !whole {
			break
		}
		at, err := time.Parse(time.RFC3339Nano, string(u.stamp))
		if err != nil {
			return 0, err
		}
		if at.After(u.until) {
			return 0, errLate
		}
		if u.keep {
			if _, err := u.to.Write(append(u.stamp, ' ')); err != nil {
				return 0, err
			}
		}
		u.stamp, u.within = u.stamp[:0], true
	}
	return all, nil
}

// maxLast bounds what lastLines keeps, in bytes.
const maxLast = 64 << 20

// lastLines keeps the last lines of what is written to it.
type lastLines struct {
	most  int64
	lines [][]byte
	bytes int
	// open: the last of them has not ended yet.
	open bool
}

// Write implements io.Writer.
func (l *lastLines) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if l.bytes += len(line); l.bytes > maxLast {
			return 0, errors.New("so many lines are more than 64 MiB: ask for fewer")
		}
		if l.open {
			l.lines[len(l.lines)-1] = append(l.lines[len(l.lines)-1], line...)
		} else {
			l.lines = append(l.lines, bytes.Clone(line))
		}
		l.open = line[len(line)-1] != '\n'
		for int64(len(l.lines)) > l.most && (!l.open || l.most > 0) {
			l.bytes -= len(l.lines[0])
			l.lines = l.lines[1:]
		}
	}
	return len(p), nil
}

func (l *lastLines) writeTo(to io.Writer) error {
	for _, line := range l.lines[max(0, len(l.lines)-int(min(l.most, int64(len(l.lines))))):] {
		if _, err := to.Write(line); err != nil {
			return err
		}
	}
	return nil
}
