// Package gather joins small writes to a connection that follow each other at once.
// An answer over HTTP/2 is written as a head and a body, each in a TLS record of its
// own: two system calls, two segments, and a reader that is woken twice. Here a small
// write is held back until all goroutines that can run have run, or until more comes;
// no timer is involved, and a connection on which little happens waits for nothing.
//
// It belongs below TLS, whose records it takes as they are.
package gather

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// small is the size of writes that are held back, in bytes, and about the most
	// that is held.
	small = 1 << 10
	// parting is how long what is held may take when the connection is closed, or
	// gets another deadline.
	parting = time.Second
)

// Listener gives connections that gather.
type Listener struct{ net.Listener }

// Accept implements net.Listener.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c}, nil
}

// Conn is a connection whose small writes may be sent a moment after Write has
// returned, in order. That one of those failed is told to the next Write. What has
// been written before Close or SetWriteDeadline is sent before either takes effect,
// unless another Write is waiting for the peer. All methods may be called
// concurrently.
type Conn struct {
	net.Conn

	mu      sync.Mutex // guards what follows, and the order of writes
	held    []byte
	promise bool // somebody is going to send what is held
	failed  error
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failed != nil:
		return 0, c.failed
	case len(c.held) == 0 && len(p) >= small:
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	if len(c.held) >= small {
		if c.send(); c.failed != nil {
			return 0, c.failed
		}
		return len(p), nil
	}
	if !c.promise {
		c.promise = true
		go c.keepPromise()
	}
	return len(p), nil
}

// keepPromise sends what is held once others have had their turn: who has written
// a head is about to write a body.
func (c *Conn) keepPromise() {
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.promise = false
	c.send()
}

// send writes what is held. The caller holds mu.
func (c *Conn) send() {
	if len(c.held) == 0 {
		return
	}
	_, c.failed = c.Conn.Write(c.held)
	if c.held = c.held[:0]; cap(c.held) > 2*small {
		c.held = nil
	}
}

// hasten sends what is held before something happens to the connection. Whoever is
// writing at the moment sends it, too, and is not waited for.
func (c *Conn) hasten() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if len(c.held) > 0 && c.Conn.SetWriteDeadline(time.Now().Add(parting)) == nil {
		c.send()
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.hasten()
	return c.Conn.Close()
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.hasten()
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.hasten()
	return c.Conn.SetWriteDeadline(t)
}
