// Package logfile reads container logs in the CRI's format, one line an entry:
//
//	2016-10-06T00:17:09.669794202Z stdout F the text
//
// where P instead of F marks a piece of a line that goes on. It can follow a
// log as it grows and across its rotation, waiting on inotify, never polling.
package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/inotify"
	"github.com/sampan-dev/sampan/node/cri"
)

// maxLine is the longest piece of an entry that is read at once; engines cut
// lines at 16 KiB.
const maxLine = 1 << 20

// Log is a container's log.
type Log struct {
	Path string
	// ID, Running and Engine serve Follow: it ends with the container.
	ID      string
	Running bool
	Engine  cri.Engine
}

// Options say what to read.
type Options struct {
	Follow, Timestamps bool
	// Tail is how many of the last lines to begin with, below zero for all.
	Tail int64
	// Limit is after how many bytes to stop, below zero for never.
	Limit int64
	// Since leaves out older entries; zero leaves out none.
	Since time.Time
	// Stream is stdout, stderr or "" for both.
	Stream string
}

// errLimit ends reading when enough has been written.
var errLimit = errors.New("enough")

// Read copies a log to w. It returns nil when it has reached the end, or, when
// following, the end of the container.
func Read(ctx context.Context, log Log, o Options, w io.Writer) error {
	f, err := os.Open(log.Path)
	if errors.Is(err, fs.ErrNotExist) && !log.Running {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	r := &reader{ctx: ctx, log: log, o: o, w: w, file: f, midway: false}
	defer func() { r.file.Close() }()
	if o.Tail >= 0 {
		at, err := tailOffset(f, o.Tail)
		if err != nil {
			return fmt.Errorf("find the last lines: %w", err)
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return fmt.Errorf("find the last lines: %w", err)
		}
	}
	r.lines = bufio.NewReader(f)
	if o.Follow && log.Running {
		err = r.follow()
	} else {
		err = r.drain()
	}
	if errors.Is(err, errLimit) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

type reader struct {
	ctx   context.Context
	log   Log
	o     Options
	w     io.Writer
	file  *os.File
	lines *bufio.Reader
	// rest is the beginning of an entry whose end hasn't been written yet.
	rest []byte
	// midway: the last entry printed was a piece, so the next has no stamp.
	midway  bool
	written int64
}

// drain prints entries up to the file's present end.
func (r *reader) drain() error {
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		piece, err := r.lines.ReadSlice('\n')
		r.rest = append(r.rest, piece...)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull) && len(r.rest) < maxLine:
			continue
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read log: %w", err)
		}
		entry := r.rest
		r.rest = nil
		if err := r.print(entry); err != nil {
			return err
		}
	}
}

// print writes one entry as the options want it.
func (r *reader) print(entry []byte) error {
	stamp, rest, ok1 := bytes.Cut(entry, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || !ok3 {
		return nil // not an entry: a torn line after a crash
	}
	if r.o.Stream != "" && r.o.Stream != string(stream) {
		return nil
	}
	if !r.o.Since.IsZero() {
		if t, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil && t.Before(r.o.Since) {
			return nil
		}
	}
	partial := bytes.HasPrefix(tag, []byte("P"))
	if partial {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	if r.o.Timestamps && !r.midway {
		text = append(append(bytes.Clone(stamp), ' '), text...)
	}
	r.midway = partial
	return r.write(text)
}

func (r *reader) write(text []byte) error {
	cut := r.o.Limit >= 0 && r.written+int64(len(text)) >= r.o.Limit
	if cut {
		text = text[:r.o.Limit-r.written]
	}
	n, err := r.w.Write(text)
	r.written += int64(n)
	if err != nil {
		return err
	}
	if cut {
		return errLimit
	}
	return nil
}

// follow prints until the container has ended and its log is read.
func (r *reader) follow() error {
	w, err := inotify.Open()
	if err != nil {
		return err
	}
	defer w.Close()
	dir := filepath.Dir(r.log.Path)
	if _, err := w.Add(dir, inotify.Modify|inotify.Create|inotify.MovedTo); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	events, err := r.log.Engine.Events(ctx)
	if err != nil {
		return fmt.Errorf("follow the container: %w", err)
	}
	ended := r.ended(ctx)
	for {
		if err := r.drain(); err != nil || ended {
			return err
		}
		if ended, err = r.wait(w, events); err != nil {
			return err
		}
	}
}

// wait returns when there may be more to read; ended when no more will come.
func (r *reader) wait(w *inotify.Watcher, events <-chan *rt.ContainerEventResponse) (ended bool, err error) {
	for {
		select {
		case e, ok := <-w.Events():
			if !ok {
				return true, nil
			}
			if e.Name != filepath.Base(r.log.Path) {
				continue
			}
			if e.Mask&(inotify.Create|inotify.MovedTo) != 0 {
				return false, r.reopen()
			}
			return false, nil
		case e, ok := <-events:
			if !ok || (e.GetContainerId() == r.log.ID && over(e.GetContainerEventType())) {
				return true, nil
			}
		case <-r.ctx.Done():
			return true, r.ctx.Err()
		}
	}
}

func over(t rt.ContainerEventType) bool {
	return t == rt.ContainerEventType_CONTAINER_STOPPED_EVENT || t == rt.ContainerEventType_CONTAINER_DELETED_EVENT
}

// reopen goes on with the file that a rotation has put in place, after the end
// of the old one.
func (r *reader) reopen() error {
	if err := r.drain(); err != nil {
		return err
	}
	f, err := os.Open(r.log.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open rotated log: %w", err)
	}
	r.file.Close()
	r.file, r.lines, r.rest = f, bufio.NewReader(f), nil
	return nil
}

func (r *reader) ended(ctx context.Context) bool {
	got, err := r.log.Engine.ContainerStatus(ctx, &rt.ContainerStatusRequest{ContainerId: r.log.ID})
	return err != nil || got.GetStatus().GetState() == rt.ContainerState_CONTAINER_EXITED
}

// tailOffset is where the last n lines begin.
func tailOffset(f *os.File, n int64) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, err
	}
	const block = 8 << 10
	buf := make([]byte, block)
	seen := int64(0)
	for at := end; at > 0; {
		size := min(block, at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			// The newline at the very end closes the last line.
			if buf[i] != '\n' || at+i == end-1 {
				continue
			}
			if seen++; seen == n {
				return at + i + 1, nil
			}
		}
	}
	return 0, nil
}
