// Package inotify tells of changes to files without polling: a thin cover over
// Linux's inotify(7) whose events come through a channel.
package inotify

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Masks of interest; see inotify(7).
const (
	Modify  = unix.IN_MODIFY
	Create  = unix.IN_CREATE
	MovedTo = unix.IN_MOVED_TO
	OneShot = unix.IN_ONESHOT
	Ignored = unix.IN_IGNORED

	MovedFrom  = unix.IN_MOVED_FROM
	Delete     = unix.IN_DELETE
	CloseWrite = unix.IN_CLOSE_WRITE
)

// Event is one change. Name is set for a change in a watched directory.
type Event struct {
	Watch int32
	Mask  uint32
	Name  string
}

// Watcher holds one inotify instance. Its methods may be called from any
// goroutine.
type Watcher struct {
	file   *os.File
	fd     int
	events chan Event
	closed chan struct{}
	once   sync.Once
}

// Open makes a Watcher. Close it, and until then read Events.
func Open() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, events: make(chan Event), closed: make(chan struct{})}
	go w.read()
	return w, nil
}

// Add watches a file or directory and returns the watch's number.
func (w *Watcher) Add(path string, mask uint32) (int32, error) {
	wd, err := unix.InotifyAddWatch(w.fd, path, mask)
	if err != nil {
		return 0, fmt.Errorf("watch %q: %w", path, err)
	}
	return int32(wd), nil
}

// Events delivers changes until Close; then it is closed.
func (w *Watcher) Events() <-chan Event { return w.events }

// Close ends the watcher; more than once does no harm.
func (w *Watcher) Close() {
	w.once.Do(func() {
		close(w.closed)
		w.file.Close()
	})
}

func (w *Watcher) read() {
	defer close(w.events)
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			e := Event{
				Watch: int32(binary.NativeEndian.Uint32(b)), Mask: binary.NativeEndian.Uint32(b[4:]),
				Name: strings.TrimRight(string(b[unix.SizeofInotifyEvent:length]), "\x00"),
			}
			b = b[length:]
			select {
			case w.events <- e:
			case <-w.closed:
				return
			}
		}
	}
}
