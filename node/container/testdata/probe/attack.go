package main

import (
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// attack is one way to the host that must not work.
type attack struct {
	name string
	try  func() error
}

// attacks are aimed at the file canary of the host.
func attacks(canary string) []attack {
	write := func(path string) func() error {
		return func() error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("x")
			return err
		}
	}
	return []attack{
		{"read by path", func() error { _, err := os.ReadFile(canary); return err }},
		{"read through pid 1", func() error { _, err := os.ReadFile("/proc/1/root" + canary); return err }},
		{"read through a handle", func() error { return byHandle(canary) }},
		{"core_pattern", write("/proc/sys/kernel/core_pattern")},
		{"core_pattern of a procfs of its own", func() error {
			if err := syscall.Mount("proc", "/tmp", "proc", 0, ""); err != nil {
				return err
			}
			return write("/tmp/sys/kernel/core_pattern")()
		}},
		{"sysrq", write("/proc/sysrq-trigger")},
		{"block device", func() error {
			if err := syscall.Mknod("/made-disk", syscall.S_IFBLK|0o600, 7<<8); err != nil {
				return err
			}
			_, err := os.Open("/made-disk")
			return err
		}},
		{"physical memory", func() error {
			if err := syscall.Mknod("/made-mem", syscall.S_IFCHR|0o600, 1<<8|1); err != nil {
				return err
			}
			_, err := os.Open("/made-mem")
			return err
		}},
		{"module", func() error {
			_, _, e := syscall.Syscall(syscall.SYS_INIT_MODULE, 0, 0, uintptr(unsafe.Pointer(&[]byte("\x00")[0])))
			return errno(e)
		}},
		{"clock", func() error { return syscall.Settimeofday(&syscall.Timeval{Sec: 1}) }},
		{"reboot", func() error { return syscall.Reboot(syscall.LINUX_REBOOT_CMD_CAD_OFF) }},
		{"a disk's file system", func() error { return syscall.Mount("/dev/zero", "/tmp", "ext4", 0, "") }},
		{"cgroup release agent", func() error {
			if err := os.Mkdir("/tmp/cg", 0o755); err != nil {
				return err
			}
			if err := syscall.Mount("cgroup", "/tmp/cg", "cgroup", 0, "memory"); err != nil {
				return err
			}
			return write("/tmp/cg/release_agent")()
		}},
		{"device numbers through a tmpfs of its own", func() error {
			if err := syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, ""); err != nil {
				return err
			}
			if err := syscall.Mknod("/tmp/null", syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
				return err
			}
			_, err := os.Open("/tmp/null")
			return err
		}},
	}
}

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// byHandle opens a file by a number that it might have, as "shocker" did.
func byHandle(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path[:strings.LastIndexByte(path, '/')], &st); err == nil {
		path = path[:strings.LastIndexByte(path, '/')]
	}
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	handle := struct {
		bytes uint32
		kind  int32
		id    [8]byte
	}{8, 1, [8]byte{2}}
	_, _, e := syscall.Syscall(sysOpenByHandleAt, root.Fd(), uintptr(unsafe.Pointer(&handle)), 0)
	return errno(e)
}

const sysOpenByHandleAt = 304
