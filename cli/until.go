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
