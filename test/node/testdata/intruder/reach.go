package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts tries to change what is mounted.
func mounts() {
	_ = os.Mkdir("/tmp/m", 0o755)
	told("mount tmpfs", unix.Mount("tmpfs", "/tmp/m", "tmpfs", 0, ""))
	told("mount proc", unix.Mount("proc", "/tmp/m", "proc", 0, ""))
	told("mount sysfs", unix.Mount("sysfs", "/tmp/m", "sysfs", 0, ""))
	told("mount cgroup", unix.Mount("cgroup", "/tmp/m", "cgroup", 0, "memory"))
	told("mount devtmpfs", unix.Mount("devtmpfs", "/tmp/m", "devtmpfs", 0, ""))
	told("bind mount", unix.Mount("/proc", "/tmp/m", "", unix.MS_BIND|unix.MS_REC, ""))
	told("remount /proc/sys", unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	told("remount /sys", unix.Mount("", "/sys", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	told("make / shared", unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""))
	told("unmount /proc/kcore", unix.Unmount("/proc/kcore", unix.MNT_DETACH))
	told("unmount /proc/sys", unix.Unmount("/proc/sys", unix.MNT_DETACH))
	told("pivot_root", unix.PivotRoot("/", "/tmp/m"))
	raw("open_tree", unix.SYS_OPEN_TREE, ^uintptr(99), str("/"), 1)
	raw("fsopen", unix.SYS_FSOPEN, str("tmpfs"), 0)
	raw("fspick", unix.SYS_FSPICK, ^uintptr(99), str("/"), 0)
	raw("move_mount", unix.SYS_MOVE_MOUNT, 0, str(""), ^uintptr(99), str("/tmp/m"), 4)
	raw("mount_setattr", unix.SYS_MOUNT_SETATTR, ^uintptr(99), str("/"), 0, str(strings.Repeat("x", 32)), 32)
}

// cgroups tries to change the limits that hold it, and to have the host run
// something.
func cgroups() {
	found, _ := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/notify_on_release")
	limits, _ := filepath.Glob("/sys/fs/cgroup/*/*.limit_in_bytes")
	others, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	found = append(append(append(found, more...), limits...), others...)
	found = append(found, "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cgroup.procs")
	for _, path := range found {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		told("write "+path, err)
	}
	found, _ = filepath.Glob("/sys/fs/cgroup/*")
	for _, dir := range append(found, "/sys/fs/cgroup") {
		told("mkdir "+dir, os.Mkdir(dir+"/hostile", 0o755))
	}
}

// processes lists everybody it can see, and tries to trace and to signal them.
func processes() error {
	found, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range found {
		b, _ := os.ReadFile(dir + "/cmdline")
		fmt.Printf("process %s %q\n", filepath.Base(dir), strings.ReplaceAll(strings.Trim(string(b), "\x00"), "\x00", " "))
	}
	return nil
}

// listen prints who sends to a UDP port: address and text.
func listen(port string) error {
	c, err := net.ListenPacket("udp4", ":"+port)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() { <-signals; os.Exit(0) }()
	fmt.Println("listening")
	var b [1500]byte
	for {
		n, from, err := c.ReadFrom(b[:])
		if err != nil {
			return err
		}
		host, _, _ := net.SplitHostPort(from.String())
		fmt.Printf("from %s: %s\n", host, b[:n])
	}
}

// spoof sends to a victim's UDP port under the address of another, in every way a
// raw socket offers, claims the other's addresses on the link, and at last sends
// honestly. Its arguments are: victim, port, the other.
func spoof(args []string) error {
	victim, other := net.ParseIP(args[0]).To4(), net.ParseIP(args[2]).To4()
	port, err := net.LookupPort("udp", args[1])
	if err != nil || victim == nil || other == nil {
		return errors.Join(err, errors.New("bad arguments"))
	}
	told("raw IP socket", rawIP(victim, other, port))
	eth, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	packet := datagram(victim, other, port, "forged")
	gateway := mac(other) // overwritten by the neighbour's own where one is known
	if hw, err := neighbour(); err == nil {
		gateway = hw
	}
	told("frame to the gateway with another's address", frame(eth, gateway, eth.HardwareAddr, packet))
	told("frame to the gateway as another", frame(eth, gateway, mac(other), packet))
	told("frame to the victim", frame(eth, mac(victim), eth.HardwareAddr, packet))
	told("frame to the victim as another", frame(eth, mac(victim), mac(other), packet))
	for _, to := range []net.HardwareAddr{gateway, {255, 255, 255, 255, 255, 255}, mac(victim)} {
		told("ARP claim", claim(eth, to, other))
	}
	c, err := net.Dial("udp4", net.JoinHostPort(args[0], args[1]))
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("honest"))
	return err
}

// mac is the address that the node's network gives a pod.
func mac(ip net.IP) net.HardwareAddr { return append(net.HardwareAddr{0x0a, 0x58}, ip.To4()...) }

// neighbour is the gateway's hardware address.
func neighbour() (net.HardwareAddr, error) {
	b, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 3 && strings.Contains(f[3], ":") {
			return net.ParseMAC(f[3])
		}
	}
	return nil, errors.New("no neighbour")
}

func rawIP(victim, other net.IP, port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, datagram(victim, other, port, "forged"), 0, &unix.SockaddrInet4{Addr: [4]byte(victim)})
}

// datagram is a UDP packet with its IP header.
func datagram(to, from net.IP, port int, text string) []byte {
	p := make([]byte, 28+len(text))
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from)
	copy(p[16:], to)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(p[20:], 5353)
	binary.BigEndian.PutUint16(p[22:], uint16(port))
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(text)))
	copy(p[28:], text)
	return p
}

func frame(eth *net.Interface, to, from net.HardwareAddr, packet []byte) error {
	return link(eth, append(append(append([]byte{}, to...), from...), append([]byte{8, 0}, packet...)...))
}

// claim answers, unasked, that the other's address is here.
func claim(eth *net.Interface, to net.HardwareAddr, other net.IP) error {
	p := append(append([]byte{}, to...), eth.HardwareAddr...)
	p = append(p, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	p = append(append(p, eth.HardwareAddr...), other...)
	p = append(append(p, to...), other...)
	return link(eth, p)
}

func link(eth *net.Interface, raw []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, raw, 0, &unix.SockaddrLinklayer{Ifindex: eth.Index})
}
