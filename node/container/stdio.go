package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stdio are the pipes of an exec: the process's descriptors, and our files.
type stdio struct {
	theirs []int
	ours   [3]*os.File
}

func openStdio(cfg ExecConfig) (*stdio, error) {
	s := &stdio{}
	for i, wanted := range []bool{cfg.Stdin != nil, cfg.Stdout != nil, cfg.Stderr != nil} {
		if err := s.open(i, wanted); err != nil {
			s.close()
			return nil, fmt.Errorf("streams: %w", err)
		}
	}
	return s, nil
}

// open makes the next stream. Our end of a pipe waits in the poller, theirs blocks:
// os.Pipe would make both wait, and take that back from one.
func (s *stdio) open(i int, wanted bool) error {
	if !wanted {
		null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			s.theirs = append(s.theirs, null)
		}
		return err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	theirs, ours := ends[1], ends[0]
	if i == 0 {
		theirs, ours = ours, theirs
	}
	s.theirs = append(s.theirs, theirs)
	if _, err := unix.FcntlInt(uintptr(ours), unix.F_SETFL, unix.O_NONBLOCK); err != nil { // a new pipe has no other flags
		unix.Close(ours)
		return err
	}
	s.ours[i] = os.NewFile(uintptr(ours), "pipe")
	return nil
}

// run copies the streams; the returned function waits for the output to end.
func (s *stdio) run(cfg ExecConfig) func() {
	s.closeTheirs()
	if in := s.ours[0]; in != nil {
		go func() {
			_, _ = io.Copy(in, cfg.Stdin) // either side may end first
			in.Close()
		}()
	}
	var out sync.WaitGroup
	for i, w := range []io.Writer{nil, cfg.Stdout, cfg.Stderr} {
		if f := s.ours[i]; i > 0 && f != nil {
			out.Go(func() { copyOut(w, f) })
		}
	}
	return func() {
		deadline := time.Now().Add(execDrain)
		for _, f := range s.ours[1:] {
			if f != nil {
				_ = f.SetReadDeadline(deadline)
			}
		}
		out.Wait()
	}
}

// sink remembers that its writer has failed.
type sink struct {
	io.Writer
	failed bool
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	s.failed = s.failed || err != nil
	return n, err
}

// copies are buffers for what processes print. Most that are executed, probes, print
// nothing: one for each of their streams would be most of their garbage.
var copies = sync.Pool{New: func() any { return new([32 << 10]byte) }} //nolint:gochecknoglobals // holds nothing

// copyOut copies until the end, or until f's deadline. What lies there then is not
// lost: a slow client, or a machine with other work, may have kept us from it. When the
// client has gone, f is closed: whoever goes on writing learns it, as from any pipe or
// terminal that nobody reads, and does not wait for ever.
func copyOut(w io.Writer, f *os.File) {
	to := &sink{Writer: w}
	buffer := copies.Get().(*[32 << 10]byte)
	_, err := io.CopyBuffer(to, struct{ io.Reader }{f}, buffer[:]) // f alone would make its own
	copies.Put(buffer)
	if to.failed {
		f.Close()
		return
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, execRest)
	for left := b; len(left) > 0; {
		n := 0
		_ = raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), left) }) // never blocks
		if n > 0 {
			if _, err = w.Write(left[:n]); err == nil {
				left = left[n:]
				continue
			}
		}
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (s *stdio) closeTheirs() {
	for _, fd := range s.theirs {
		unix.Close(fd)
	}
	s.theirs = nil
}

func (s *stdio) close() {
	s.closeTheirs()
	for _, f := range s.ours {
		if f != nil {
			f.Close()
		}
	}
}

// runTTY copies between the master and the streams.
func runTTY(fd int, cfg ExecConfig) func() {
	_ = unix.SetNonblock(fd, true) // of a valid descriptor it cannot fail
	m := os.NewFile(uintptr(fd), "tty")
	over := make(chan struct{})
	if cfg.Stdin != nil {
		go func() { _, _ = io.Copy(m, cfg.Stdin) }()
	}
	go func() {
		for {
			select {
			case size, ok := <-cfg.Resize:
				if !ok {
					return
				}
				setSize(m, size)
			case <-over:
				return
			}
		}
	}()
	var out sync.WaitGroup
	out.Go(func() {
		w := cfg.Stdout
		if w == nil {
			w = io.Discard
		}
		copyOut(w, m)
	})
	return func() {
		_ = m.SetReadDeadline(time.Now().Add(execDrain))
		out.Wait()
		close(over)
		m.Close()
	}
}

func setSize(m *os.File, s Size) {
	raw, err := m.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a terminal that is gone has no size
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
}
