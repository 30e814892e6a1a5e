// Package watchdog bounds how long a client may take over a part of a request
// without telling the connection each time. A deadline on an HTTP/2 stream is a
// message to the goroutine that owns the connection, and taking it away another:
// around each batch of a watch they cost more than the batch. A Dog sets the
// deadline only when it has passed.
package watchdog

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// parting is how long whoever missed the deadline may take to notice. Over HTTP/2 a
// stream ends with a message, which goes the way of all others: to a client that takes
// nothing from the connection at all it is never sent, and nobody is told.
const parting = 10 * time.Second

// Dog barks once when it has been armed for too long. Its methods may be called
// concurrently, Arm and Disarm in turn by one goroutine.
type Dog struct {
	set func(time.Time) error
	end func()

	mu    sync.Mutex // held while barking: after Disarm there is no bark
	timer *time.Timer
	armed bool
	until time.Time
	bit   bool
}

// New returns a Dog that is not armed. set is what sets a deadline; it may be one
// that fails. It is called with a time long past when the dog barks, and with none
// when it is disarmed after that. end, which may be nil, is called when the dog is
// still armed ten seconds after it barked: the deadline alone did not help.
func New(set func(time.Time) error, end func()) *Dog { return &Dog{set: set, end: end} }

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// Arm lets the dog bark after wait, unless it is disarmed before.
func (d *Dog) Arm(wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, d.until = true, time.Now().Add(wait)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.bark)
		return
	}
	d.timer.Reset(wait)
}

// Disarm calls the dog off. Once it returns, the dog does nothing any more.
func (d *Dog) Disarm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	d.timer.Stop()
	if d.bit {
		d.bit = false
		_ = d.set(time.Time{}) // the next user of the connection has time of his own
	}
}

func (d *Dog) bark() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.armed || time.Now().Before(d.until) {
		return // disarmed meanwhile, and perhaps armed again
	}
	if d.bit {
		d.end()
		return
	}
	d.bit = true
	_ = d.set(longAgo) // not every connection has deadlines
	if d.end != nil {
		d.until = time.Now().Add(parting)
		d.timer.Reset(parting)
	}
}

// connection is the key of a request's connection in its context.
type connection struct{}

// Over is for the ConnContext of an http.Server: it is how HangUp finds connections.
func Over(ctx context.Context, c net.Conn) context.Context {
	if t, is := c.(*tls.Conn); is {
		c = t.NetConn() // TLS would say goodbye first
	}
	return context.WithValue(ctx, connection{}, c)
}

// HangUp is what closes the connection over which a request came, with all that is on
// it; nil where nobody knows the connection. ctx is the request's.
func HangUp(ctx context.Context) func() {
	c, is := ctx.Value(connection{}).(net.Conn)
	if !is {
		return nil
	}
	return func() { _ = c.Close() } // there is nobody to tell
}
