package main

import (
	"os"
	"syscall"
	"unsafe"
)

// loopback sets up the only device of a new network, as other runtimes do: nobody else
// comes to. Any socket will do.
func loopback() error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{name: [syscall.IFNAMSIZ]byte{'l', 'o'}, flags: syscall.IFF_UP}
	_, err = ioctl(fd, syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	return err
}
