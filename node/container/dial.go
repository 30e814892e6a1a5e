package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// DialIn connects to a TCP address inside a sandbox's network namespace, without
// a process in it: a socket belongs to the namespace that it was made in. The
// host is an IP address or localhost, which is tried as 127.0.0.1 and as ::1.
func (r *Runtime) DialIn(ctx context.Context, sandboxID, address string) (net.Conn, error) {
	s, err := r.Sandbox(sandboxID)
	if err != nil {
		return nil, err
	}
	if s.NetNS() == "" {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %q in sandbox %q: %w", address, sandboxID, err)
	}
	hosts := []string{host}
	if host == "localhost" || host == "" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var all error
	for _, h := range hosts {
		addr, err := netip.ParseAddrPort(net.JoinHostPort(h, port))
		if err != nil {
			return nil, fmt.Errorf("dial %q in sandbox %q: %w", address, sandboxID, err)
		}
		conn, err := dialIn(ctx, s.NetNS(), addr)
		if err == nil {
			return conn, nil
		}
		all = errors.Join(all, err)
	}
	return nil, fmt.Errorf("dial %q in sandbox %q: %w", address, sandboxID, all)
}

// dialIn makes the socket with a thread in the namespace, and connects it with any.
func dialIn(ctx context.Context, netns string, addr netip.AddrPort) (net.Conn, error) {
	fd := -1
	err := onLostThread(func() error {
		ns, err := os.Open(netns)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		family := unix.AF_INET6
		if addr.Addr().Is4() {
			family = unix.AF_INET
		}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), addr.String())
	defer f.Close() // net.FileConn has a copy
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if addr.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, os.NewSyscallError("connect", err)
	}
	if err := awaitConnect(ctx, f); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

func awaitConnect(ctx context.Context, f *os.File) error {
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		if _, perr := unix.Getpeername(int(fd)); perr == nil {
			return true
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		result = os.NewSyscallError("connect", err)
		return err != nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, result)
}
