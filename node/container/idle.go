package container

import (
	"net"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxIdle is how many connections wait for the next terse request.
const maxIdle = 4

// terse is request of a terse one, on a connection that is idle if there is one. What
// could not be sent has not been heard: the keeper at the other end is gone, and the
// next connection is tried.
func (l *keeperLink) terse(req plan.Request, fds ...int) (*net.UnixConn, error) {
	for c := l.takeIdle(); c != nil; c = l.takeIdle() {
		if sendMessage(c, req, fds...) == nil {
			return c, nil
		}
		c.Close()
	}
	return l.request(req, fds...)
}

func (l *keeperLink) takeIdle() *net.UnixConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.idle)
	if n == 0 {
		return nil
	}
	c := l.idle[n-1]
	l.idle = l.idle[:n-1]
	return c
}

// keep takes a connection on which a terse request has been answered.
func (l *keeperLink) keep(c *net.UnixConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.idle) == maxIdle {
		c.Close()
		return
	}
	l.idle = append(l.idle, c)
}
