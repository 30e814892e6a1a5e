package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/backoff"
)

// Limits of what is served at once.
const (
	// readers is how many goroutines read one UDP socket, and so how many
	// questions about the cluster are answered at once.
	readers = 4
	// maxPacket is the largest UDP question that is read.
	maxPacket = 4096
	// receiveBuffer is what one UDP socket holds while the readers are busy:
	// a flood of ten thousand questions must not push out one about the cluster.
	receiveBuffer = 8 << 20
	// maxConns bounds the TCP connections of one listener; tcpIdle is for how
	// long one may be silent, tcpWrite how long a reply may take.
	maxConns = 256
	tcpIdle  = 10 * time.Second
	tcpWrite = 5 * time.Second
)

// listen serves an address for as long as ctx lasts. The address need not be
// one of the host's yet.
func (s *Server) listen(ctx context.Context, network, addr string) {
	cfg := net.ListenConfig{Control: freebind}
	retry := backoff.Policy{Min: time.Second, Max: 30 * time.Second, Jitter: 0.2}
	for failures := 1; ; failures++ {
		err := s.listenOnce(ctx, &cfg, network, addr)
		if ctx.Err() != nil {
			return
		}
		delay := retry.After(failures)
		s.log.Warn("cannot serve", "network", network, "address", addr, "retry", delay.Round(time.Millisecond), "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) listenOnce(ctx context.Context, cfg *net.ListenConfig, network, addr string) error {
	if network == "udp" {
		c, err := cfg.ListenPacket(ctx, network, addr)
		if err != nil {
			return err
		}
		return s.serveUDP(ctx, c)
	}
	l, err := cfg.Listen(ctx, network, addr)
	if err != nil {
		return err
	}
	return s.serveTCP(ctx, l)
}

// freebind allows listening at an address that is not there yet.
func freebind(network, _ string, c syscall.RawConn) error {
	var err error
	outer := c.Control(func(fd uintptr) {
		if network == "udp6" || network == "tcp6" {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(outer, err)
}

// serveUDP answers until ctx ends or the socket fails, and closes it.
func (s *Server) serveUDP(ctx context.Context, c net.PacketConn) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	widen(c)
	var wg sync.WaitGroup
	errs := make(chan error, readers)
	for range readers {
		wg.Go(func() { errs <- s.readUDP(ctx, c) })
	}
	err := <-errs
	c.Close()
	wg.Wait()
	return err
}

// widen gives the socket a large buffer: beyond the host's limit if the process
// may, else as large as the host allows.
func widen(c net.PacketConn) {
	u, ok := c.(*net.UDPConn)
	if !ok {
		return
	}
	_ = u.SetReadBuffer(receiveBuffer)
	if raw, err := u.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		})
	}
}

func (s *Server) readUDP(ctx context.Context, c net.PacketConn) error {
	buf := make([]byte, maxPacket)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // an asker that is gone
		}
		if err != nil {
			return err
		}
		reply, later := s.answer(buf[:n], addressOf(from), true)
		if later != nil {
			if s.forward.wait() {
				wg.Go(func() {
					defer s.forward.waited()
					send(c, later(ctx), from)
				})
				continue
			}
			reply = later(overloaded())
		}
		send(c, reply, from)
	}
}

// addressOf is who asks; not valid for who has no IP address.
func addressOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func send(c net.PacketConn, reply []byte, to net.Addr) {
	if reply != nil {
		_, _ = c.WriteTo(reply, to) // a lost reply is asked for again
	}
}

// serveTCP answers until ctx ends or the listener fails, and closes it.
func (s *Server) serveTCP(ctx context.Context, l net.Listener) error {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, maxConns)
	for {
		free <- struct{}{} // the kernel's queue holds the rest
		c, err := l.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer func() { <-free }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.converse(ctx, c)
		})
	}
}

// converse answers the questions of one connection, one after the other.
func (s *Server) converse(ctx context.Context, c net.Conn) {
	var length [2]byte
	for {
		c.SetReadDeadline(time.Now().Add(tcpIdle))
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		reply, later := s.answer(packet, addressOf(c.RemoteAddr()), false)
		if later != nil {
			reply = s.converseLater(ctx, later)
		}
		if reply == nil {
			return
		}
		c.SetWriteDeadline(time.Now().Add(tcpWrite))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func (s *Server) converseLater(ctx context.Context, later func(context.Context) []byte) []byte {
	if !s.forward.wait() {
		return later(overloaded())
	}
	defer s.forward.waited()
	return later(ctx)
}

// overloaded is a context in which only what needs no waiting is done.
func overloaded() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
