package main

import (
	"encoding/binary"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// slowClient is how long an attached client may refuse a frame. Meanwhile the
// container waits; afterwards the client is cut off.
const slowClient = 5 * time.Second

// client is an attached connection.
type client struct{ c *conn }

// attach joins a connection to a container's stdio until either ends.
func (k *keeper) attach(c *conn, id string, stdin bool) {
	ch := k.find(id)
	if ch == nil || ch.out == nil {
		_ = c.send(plan.Answer{Version: plan.Version, Error: "container " + id + " is not known to the keeper"})
		return
	}
	if c.send(plan.Answer{Version: plan.Version, Done: true}) != nil {
		return
	}
	cl := &client{c}
	o := ch.out
	if !o.join(cl) {
		return
	}
	o.input(c)
	if stdin {
		o.endStdin()
	}
	o.mu.Lock()
	delete(o.clients, cl)
	o.mu.Unlock()
}

// endStdin closes the container's input when it was for one client only, and says
// whether it did.
func (o *output) endStdin() bool {
	if !o.once || o.tty || o.stdin == nil {
		return false
	}
	o.stdin.Close()
	return true
}

// input carries a client's frames to the container until the client is gone, or has
// said all that it had to say to a container that goes on reading: kubectl's attach
// would wait for it otherwise, with nothing left to do.
func (o *output) input(c *conn) {
	buf := make([]byte, plan.MaxFrame+1)
	for {
		n, err := c.f.Read(buf)
		if err != nil || n == 0 {
			return
		}
		b := buf[1:n]
		switch plan.Stream(buf[0]) {
		case plan.Stdin:
			if o.stdin != nil {
				if _, err := o.stdin.Write(b); err != nil {
					return
				}
			}
		case plan.StdinEOF:
			if !o.endStdin() {
				return
			}
		case plan.Resize:
			if o.tty && o.stdout != nil && len(b) == 4 {
				resize(o.stdout, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
			}
		}
	}
}

// broadcast gives a frame to every client.
func (o *output) broadcast(frame []byte) {
	o.mu.Lock()
	all := make([]*client, 0, len(o.clients))
	for cl := range o.clients {
		all = append(all, cl)
	}
	o.mu.Unlock()
	for _, cl := range all {
		_ = cl.c.f.SetWriteDeadline(time.Now().Add(slowClient))
		if _, err := cl.c.f.Write(frame); err != nil {
			cl.c.close()
		}
	}
}

func resize(tty *os.File, rows, cols uint16) {
	raw, err := tty.SyscallConn()
	if err != nil {
		return
	}
	ws := &[4]uint16{rows, cols}
	_ = raw.Control(func(fd uintptr) { // a terminal that is gone has no size
		_, _ = ioctl(int(fd), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(ws)))
	})
}
