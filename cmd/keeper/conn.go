package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// conn is a SOCK_SEQPACKET socket that waits in the runtime's poller.
type conn struct{ f *os.File }

// maxFDs is how many descriptors a request may carry; a list may have plan.MaxGroups more.
const maxFDs = 5

// scratch is the one buffer that requests and output go through: the keeper runs
// on one processor, and idle connections must cost no memory.
var scratch struct {
	sync.Mutex
	b [plan.MaxMessage]byte
}

func newConn(fd int) (*conn, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return &conn{os.NewFile(uintptr(fd), "conn")}, nil
}

// pair is a connected pair of sockets: ours, and the one for a child.
func pair() (*conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, err := newConn(fds[0])
	return ours, os.NewFile(uintptr(fds[1]), "stage"), err
}

// quietPair is pair, but for our end to wait in no poller: to read from it is for when
// the child has ended. The keeper would wake when the child executes its program.
func quietPair() (*conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return &conn{os.NewFile(uintptr(fds[0]), "conn")}, os.NewFile(uintptr(fds[1]), "stage"), nil
}

// accept waits for the next connection.
func (c *conn) accept() (*conn, error) {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var got error
	err = raw.Read(func(l uintptr) bool {
		fd, _, got = syscall.Accept4(int(l), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
		return !errors.Is(got, syscall.EAGAIN)
	})
	if err = errors.Join(err, got); err != nil {
		return nil, err
	}
	return newConn(fd)
}

// recv decodes one message into v and returns the descriptors that came along;
// io.EOF when the other side is gone.
func (c *conn) recv(v any) ([]int, error) {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fds []int
	var got error
	err = raw.Read(func(fd uintptr) bool {
		fds, got = recvNow(int(fd), v)
		return !errors.Is(got, syscall.EAGAIN)
	})
	return fds, errors.Join(err, got)
}

func recvNow(fd int, v any) ([]int, error) {
	scratch.Lock()
	defer scratch.Unlock()
	oob := make([]byte, syscall.CmsgSpace((maxFDs+plan.MaxGroups)*4))
	n, oobn, flags, _, err := syscall.Recvmsg(fd, scratch.b[:], oob, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	fds := rights(oob[:oobn])
	if n == 0 {
		closeAll(fds)
		return nil, io.EOF
	}
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		closeAll(fds)
		return nil, errors.New("message is longer than agreed")
	}
	if err := plan.Decode(scratch.b[:n], v); err != nil {
		closeAll(fds)
		return nil, err
	}
	return fds, nil
}

func rights(oob []byte) []int {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []int
	for i := range messages {
		if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

// send encodes v as one message with descriptors.
func (c *conn) send(v any, fds ...int) error {
	b, err := plan.Encode(v)
	if err != nil {
		return err
	}
	return c.write(b, fds...)
}

// write sends one message as it is.
func (c *conn) write(b []byte, fds ...int) error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	var got error
	err = raw.Write(func(fd uintptr) bool {
		got = syscall.Sendmsg(int(fd), b, oob, nil, syscall.MSG_NOSIGNAL)
		return !errors.Is(got, syscall.EAGAIN)
	})
	return errors.Join(err, got)
}

func (c *conn) close() { c.f.Close() }

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}
