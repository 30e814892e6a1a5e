package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// The log's bounds: together about 300 MiB of disk.
const (
	MaxFile  = 64 << 20
	MaxFiles = 5
)

// Sink takes events, encoded as JSON. It does not keep who writes waiting for
// others, and does not keep an event: the memory is used again.
type Sink interface {
	Write(event []byte)
	Close() error
}

// maxAhead bounds what waits for the disk, in bytes: who writes more waits, too.
const maxAhead = 4 << 20

// File is a Sink that appends lines to a file and keeps a few old ones. One
// goroutine writes all that has come while it wrote: a line waits for the one
// write under way, never for a timer, and a busy server writes many at once.
type File struct {
	path string
	max  int64 // bytes of one file
	log  *slog.Logger
	done chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex
	more  sync.Cond // there is something ahead, or room again, or the end
	ahead []byte    // whole lines, not written yet
	ended bool

	// What follows belongs to the goroutine.
	file  *os.File
	size  int64
	spare []byte
}

// OpenFile starts appending to the file at path, whose folder is made.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, max: MaxFile, log: log, done: make(chan struct{})}
	f.more.L = &f.mu
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if err := f.open(); err != nil {
		return nil, err
	}
	go f.run()
	return f, nil
}

// open starts appending to the present file.
func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open audit log: %w", err), file.Close())
	}
	f.file, f.size = file, info.Size()
	return nil
}

// Close writes what has come and ends the log; what comes later is dropped.
func (f *File) Close() error {
	f.mu.Lock()
	f.ended = true
	f.more.Broadcast()
	f.mu.Unlock()
	<-f.done
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// Write appends one event as a line.
func (f *File) Write(event []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ahead) > maxAhead && !f.ended {
		f.more.Wait()
	}
	if f.ended {
		return
	}
	if len(f.ahead) == 0 {
		f.more.Broadcast()
	}
	f.ahead = append(append(f.ahead, event...), '\n')
}

// run writes until the log ends.
func (f *File) run() {
	defer close(f.done)
	for {
		f.mu.Lock()
		for len(f.ahead) == 0 && !f.ended {
			f.more.Wait()
		}
		lines := f.ahead
		f.ahead, f.spare = f.spare[:0], nil
		if len(lines) > maxAhead {
			f.more.Broadcast()
		}
		f.mu.Unlock()
		if len(lines) == 0 {
			return
		}
		f.append(lines)
		if cap(lines) <= maxSpare {
			f.spare = lines
		}
	}
}

// maxSpare is the size of a buffer that is worth keeping, in bytes.
const maxSpare = 64 << 10

// append writes lines, in the next file those that have no room in this one.
func (f *File) append(lines []byte) {
	for len(lines) > 0 {
		now := lines
		if room := f.max - f.size; int64(len(now)) > room {
			now = now[:1+bytes.LastIndexByte(now[:max(room, 0)], '\n')]
			if len(now) == 0 && f.size == 0 { // a line longer than a file
				now = lines[:1+bytes.IndexByte(lines, '\n')]
			}
		}
		if len(now) > 0 && f.file != nil {
			n, err := f.file.Write(now)
			f.size += int64(n)
			if err != nil {
				f.log.Error("write audit lines", "error", err)
			}
		}
		if lines = lines[len(now):]; len(lines) > 0 {
			if f.rotate(); f.file == nil {
				return
			}
		}
	}
}

// rotate shifts audit.log to audit.log.1 and so on; the oldest goes.
func (f *File) rotate() {
	err := f.file.Close()
	f.file, f.size = nil, 0
	for i := MaxFiles - 1; i > 0; i-- {
		from := fmt.Sprintf("%s.%d", f.path, i-1)
		if i == 1 {
			from = f.path
		}
		if e := os.Rename(from, fmt.Sprintf("%s.%d", f.path, i)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err = errors.Join(err, f.open()); err != nil {
		f.log.Error("rotate audit log", "error", err)
	}
}
