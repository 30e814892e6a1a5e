package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// drainWait bounds how long an exit is kept back for the sake of a client that
// takes nothing: as long as two such clients may hold the output up.
const drainWait = 2 * slowClient

// ttyWait is how long a terminal's own end is waited for: what was printed there
// comes to the master by way of a worker of the kernel, in its time.
const ttyWait = 200 * time.Millisecond

// stream is one output of a container. What changes in it is guarded by the lock of
// scratch, which whoever reads has.
type stream struct {
	f     *os.File
	kind  plan.Stream
	lines lineLog
	// taken is how many bytes have been read.
	taken uint64
	// mark is how many bytes will have been read when everything that lay in the
	// pipe at a moment has; passed closes then, and nil is "nobody asks".
	mark   uint64
	passed chan struct{}
}

func newStream(f *os.File, kind plan.Stream) *stream {
	st := &stream{f: f, kind: kind, lines: lineLog{stream: "stdout"}}
	if kind == plan.Stderr {
		st.lines.stream = "stderr"
	}
	return st
}

// drained waits until everything that was printed by now is in the log. With a pid
// namespace of its own a container's pipes have ended by then; without one, a
// survivor may hold them open, and print, as long as it likes: then it is enough to
// have read what lies in them now.
func (o *output) drained(d time.Duration) {
	ended := make(chan struct{})
	go func() {
		o.pumps.Wait()
		o.close()
		close(ended)
	}()
	late := time.NewTimer(d)
	defer late.Stop()
	if o.tty {
		wait := time.NewTimer(ttyWait)
		defer wait.Stop()
		select {
		case <-ended:
			return
		case <-wait.C:
		}
	}
	for _, st := range o.streams {
		select {
		case <-o.setMark(st):
		case <-ended:
			return
		case <-late.C:
			return
		}
	}
}

// setMark asks to be told when what lies in the pipe now has been logged.
func (o *output) setMark(st *stream) <-chan struct{} {
	scratch.Lock()
	st.mark, st.passed = st.taken+uint64(lying(st.f)), make(chan struct{})
	passed := st.passed
	scratch.Unlock()
	o.atMark(st)
	return passed
}

// atMark tells whoever waits, if the mark has been reached. The last line need not
// be whole.
func (o *output) atMark(st *stream) {
	scratch.Lock()
	defer scratch.Unlock()
	if st.passed == nil || st.taken < st.mark {
		return
	}
	o.write(st.lines.end(time.Now()))
	close(st.passed)
	st.passed = nil
}

// lying is how many bytes wait in a pipe or terminal; 0 for one that has ended.
func lying(f *os.File) int {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	var n int32
	_ = raw.Control(func(fd uintptr) {
		_, _ = ioctl(int(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	})
	return int(n)
}
