package audit

import (
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
// others.
type Sink interface {
	Write(event []byte)
	Close() error
}

// File is a Sink that appends lines to a file and keeps a few old ones.
type File struct {
	path string
	max  int64 // bytes of one file
	log  *slog.Logger

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenFile starts appending to the file at path, whose folder is made.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, max: MaxFile, log: log}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return f, f.open()
}

// open starts appending to the present file. The caller holds mu, or is alone.
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

// Close ends the log; what comes later is dropped.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
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
	if f.file == nil {
		return
	}
	size := int64(len(event)) + 1
	if f.size > 0 && f.size+size > f.max {
		f.rotate()
	}
	if f.file == nil {
		return
	}
	n, err := f.file.Write(append(event[:len(event):len(event)], '\n'))
	f.size += int64(n)
	if err != nil {
		f.log.Error("write audit line", "error", err)
	}
}

// rotate shifts audit.log to audit.log.1 and so on; the oldest goes. The caller
// holds mu.
func (f *File) rotate() {
	err := f.file.Close()
	f.file = nil
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
