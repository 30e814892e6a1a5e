package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// output is where a container's stdio ends: read ends or the tty's master here,
// the log file and the attached clients there.
type output struct {
	mu      sync.Mutex
	path    string
	log     *os.File
	clients map[*client]struct{}
	over    bool // closed: nobody can attach any more
	early   early

	stdout, stderr *os.File // read ends; stdout is the master of a tty
	stdin          *os.File // write end, or nil
	once           bool
	tty            bool
	pumps          sync.WaitGroup
	streams        []*stream
}

// openOutput opens the child's FIFOs, our end and then theirs, and the log file.
// The child's ends are open for reading too: when a keeper dies, the container
// must not get SIGPIPE before the successor has come.
func openOutput(c *plan.Child) (*output, []*os.File, error) {
	o := &output{path: c.Log, clients: map[*client]struct{}{}, once: c.StdinOnce, tty: c.TTY}
	if o.once {
		o.early.met = make(chan struct{})
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return o, nil, err
	}
	stdio := []*os.File{null, null, null}
	if c.Stdin != "" && !c.TTY {
		if stdio[0], o.stdin, err = openStdin(c); err != nil {
			return o, []*os.File{null}, err
		}
	}
	for i, path := range []string{c.Stdout, c.Stderr} {
		if path == "" || c.TTY {
			continue
		}
		theirs, err := openFD(path, syscall.O_RDWR)
		if err != nil {
			return o, stdio, err
		}
		stdio[i+1] = os.NewFile(uintptr(theirs), path)
	}
	return o, stdio, errors.Join(o.openReadEnds(c), o.reopen())
}

func (o *output) openReadEnds(c *plan.Child) error {
	for path, end := range map[string]**os.File{c.Stdout: &o.stdout, c.Stderr: &o.stderr} {
		if path == "" || c.TTY {
			continue
		}
		fd, err := openFD(path, syscall.O_RDONLY|syscall.O_NONBLOCK)
		if err != nil {
			return err
		}
		*end = os.NewFile(uintptr(fd), path)
	}
	return nil
}

func openStdin(c *plan.Child) (theirs, ours *os.File, err error) {
	mode := syscall.O_RDWR // never ends, not even with the keeper
	if c.StdinOnce {
		mode = syscall.O_RDONLY
	}
	r, err := openFD(c.Stdin, mode|syscall.O_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	w, err := openFD(c.Stdin, syscall.O_WRONLY|syscall.O_NONBLOCK)
	if err != nil {
		syscall.Close(r)
		return nil, nil, err
	}
	err = syscall.SetNonblock(r, false)
	return os.NewFile(uintptr(r), c.Stdin), os.NewFile(uintptr(w), c.Stdin), err
}

func openFD(path string, flags int) (int, error) {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// reopenOutput opens our ends of a living container's FIFOs. What it cannot open
// it leaves out: the container matters more than its output.
func reopenOutput(c *plan.Child) (*output, error) {
	o := &output{path: c.Log, clients: map[*client]struct{}{}, once: c.StdinOnce, tty: c.TTY}
	err := errors.Join(o.openReadEnds(c), o.reopen())
	if c.Stdin != "" && !c.TTY {
		w, werr := openFD(c.Stdin, syscall.O_WRONLY|syscall.O_NONBLOCK)
		if werr == nil {
			o.stdin = os.NewFile(uintptr(w), c.Stdin)
		}
		err = errors.Join(err, werr)
	}
	return o, err
}

// setMaster takes the master side of the tty that the stage has made.
func (o *output) setMaster(fd int) {
	o.stdout = pollFile(fd, "tty")
	o.stdin = o.stdout
}

// reopen opens the log file anew.
func (o *output) reopen() error {
	if o.path == "" {
		return nil
	}
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		o.log.Close()
	}
	o.log = f
	return nil
}

// pump starts to read what the container prints.
func (o *output) pump() {
	for f, s := range map[*os.File]plan.Stream{o.stdout: plan.Stdout, o.stderr: plan.Stderr} {
		if f != nil {
			o.pumps.Add(1)
			st := newStream(f, s)
			o.streams = append(o.streams, st)
			go o.read(st)
		}
	}
}

func (o *output) read(st *stream) {
	defer o.pumps.Done()
	raw, err := st.f.SyscallConn()
	if err != nil {
		return
	}
	for open := true; open; {
		err := raw.Read(func(fd uintptr) (ready bool) {
			ready, open = o.readNow(int(fd), st)
			return ready
		})
		open = open && err == nil
	}
	scratch.Lock()
	defer scratch.Unlock()
	o.write(st.lines.end(time.Now()))
}

// readNow moves one piece from the pipe to the log and the clients.
func (o *output) readNow(fd int, st *stream) (ready, open bool) {
	scratch.Lock()
	n, err := syscall.Read(fd, scratch.b[1:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		scratch.Unlock()
		return err == syscall.EINTR, true
	}
	if n <= 0 { // the end of a pipe, or EIO of a tty that nobody has open
		scratch.Unlock()
		return true, false
	}
	st.taken += uint64(n)
	o.write(st.lines.add(scratch.b[1:1+n], time.Now()))
	frame := o.frame(st.kind, n)
	scratch.Unlock()
	if frame != nil {
		o.deliver(frame)
	}
	o.atMark(st)
	return true, true
}

// frame copies the scratch buffer for the attached clients, if there are any, or
// for the one that is waited for.
func (o *output) frame(s plan.Stream, n int) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.clients) == 0 && o.early.met == nil {
		return nil
	}
	return append([]byte{byte(s)}, scratch.b[1:1+n]...)
}

// write appends to the log. A full disk loses the line, never the container.
func (o *output) write(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log == nil || len(b) == 0 {
		return
	}
	if _, err := o.log.Write(b); err != nil {
		note("write log "+o.path, err.Error())
	}
}

// close lets go of the files and the clients.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range []*os.File{o.stdin, o.stdout, o.stderr, o.log} {
		if f != nil {
			f.Close()
		}
	}
	o.log, o.over = nil, true
	for cl := range o.clients {
		cl.c.close()
	}
	clear(o.clients)
}

// lastWords is what a stage that never got ready has left on its stderr: the
// trace of a crash.
func (o *output) lastWords() string {
	if o.stderr == nil {
		return ""
	}
	var b [2048]byte
	n, _ := syscall.Read(int(o.stderr.Fd()), b[:])
	if n <= 0 {
		return ""
	}
	return ": " + string(b[:n])
}

func closeFiles(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
