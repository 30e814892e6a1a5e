// Package netfilter asks the kernel whether it has a packet filter at all.
package netfilter

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Check fails when the kernel has no nf_tables, nor can load it. Ask before a connection
// is made: the library that makes it takes such a refusal for a connection.
func Check() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("this kernel has no packet filter (modprobe nf_tables may give it one): %w", err)
	}
	return unix.Close(fd)
}
