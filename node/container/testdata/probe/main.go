// Command probe is what the tests run inside containers: each verb looks at one
// thing and prints it. Verbs are separated by ";".
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 {
		n := 0
		for n < len(args) && args[n] != ";" {
			n++
		}
		run(args[0], args[1:n])
		args = args[min(n+1, len(args)):]
	}
}

func run(verb string, a []string) {
	switch verb {
	case "exit":
		n, _ := strconv.Atoi(a[0])
		os.Exit(n)
	case "echo":
		fmt.Println(strings.Join(a, " "))
	case "print":
		fmt.Print(strings.Join(a, " "))
	case "err":
		fmt.Fprintln(os.Stderr, strings.Join(a, " "))
	case "fill":
		n, _ := strconv.Atoi(a[0])
		fmt.Println(strings.Repeat("x", n))
	case "flood": // megabytes of lines
		n, _ := strconv.Atoi(a[0])
		w := bufio.NewWriterSize(os.Stdout, 64<<10)
		line := strings.Repeat("y", 99) + "\n"
		for range n << 20 / len(line) {
			w.WriteString(line)
		}
		w.Flush()
	case "sleep":
		time.Sleep(time.Hour)
	case "insist": // counts in a file, and has a timer wake it from whatever stop
		insist(a[0])
	case "term":
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM)
		fmt.Println("ready")
		<-ch
		os.Exit(7)
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
	case "lines":
		s := bufio.NewScanner(os.Stdin)
		for s.Scan() {
			fmt.Println("got " + s.Text())
			if s.Text() == "quit" {
				return
			}
		}
	case "read":
		b, err := os.ReadFile(a[0])
		fmt.Printf("%s %v %s\n", a[0], short(err), strings.TrimSpace(string(b)))
	case "write":
		fmt.Println("write", a[0], short(os.WriteFile(a[0], []byte("x"), 0o644)))
	case "append":
		f, err := os.OpenFile(a[0], os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(a[1])
		}
		fmt.Println("append", a[0], short(err))
	case "ls":
		es, err := os.ReadDir(a[0])
		var names []string
		for _, e := range es {
			names = append(names, e.Name())
		}
		sort.Strings(names)
		fmt.Println("ls", a[0], short(err), strings.Join(names, ","))
	case "stat":
		st, err := os.Stat(a[0])
		if err == nil {
			fmt.Println("stat", a[0], st.Mode())
		} else {
			fmt.Println("stat", a[0], short(err))
		}
	case "owner":
		var st syscall.Stat_t
		err := syscall.Lstat(a[0], &st)
		fmt.Printf("%s %d:%d %o %s\n", a[0], st.Uid, st.Gid, st.Mode&0o7777, short(err))
	case "device":
		var st syscall.Stat_t
		for _, name := range a {
			fmt.Println("device", name, short(syscall.Stat(name, &st)), st.Dev == first(a[0]))
		}
	case "fds":
		links, _ := filepath.Glob("/proc/self/fd/*")
		var out []string
		for _, l := range links {
			to, err := os.Readlink(l)
			// The Go runtime of this probe has an epoll and its cgroup's files open.
			runtimes := strings.HasPrefix(to, "/sys/fs/cgroup/") && !strings.HasSuffix(to, "cgroup.procs")
			if err == nil && !strings.HasPrefix(to, "anon_inode") && !runtimes && !strings.HasSuffix(to, "/fd") {
				out = append(out, filepath.Base(l))
			}
		}
		sort.Strings(out)
		fmt.Println("fds", strings.Join(out, ","))
	case "env":
		fmt.Println(a[0], os.Getenv(a[0]))
	case "keep": // in the session's keyring
		const value = "secret"
		_, _, e := syscall.Syscall6(syscall.SYS_ADD_KEY, text("user"), text(a[0]), text(value), uintptr(len(value)), ofSession, 0)
		fmt.Println("keep", a[0], e == 0)
	case "key":
		_, _, e := syscall.Syscall6(syscall.SYS_KEYCTL, 10, ofSession, text("user"), text(a[0]), 0, 0) // KEYCTL_SEARCH
		fmt.Println("key", a[0], e == 0)
	case "id":
		g, _ := os.Getgroups()
		wd, err := os.Getwd()
		fmt.Println("id", os.Getuid(), os.Getgid(), g, wd, short(err))
	case "host":
		h, _ := os.Hostname()
		fmt.Println("host", h, "pid", os.Getpid())
	case "status":
		f, _ := os.Open("/proc/self/status")
		defer f.Close()
		s := bufio.NewScanner(f)
		for s.Scan() {
			for _, p := range a {
				if strings.HasPrefix(s.Text(), p+":") {
					fmt.Println(strings.Join(strings.Fields(s.Text()), " "))
				}
			}
		}
	case "mem":
		n, _ := strconv.Atoi(a[0])
		b := make([]byte, n<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		fmt.Println("mem", len(b))
	case "fork":
		n, _ := strconv.Atoi(a[0])
		started := 0
		var last error
		for range n {
			c := exec.Command("/proc/self/exe", "sleep")
			if last = c.Start(); last != nil {
				break
			}
			started++
		}
		fmt.Println("fork", started < n, short(last))
	case "orphan":
		c := exec.Command("/proc/self/exe", "sleep")
		fmt.Println("orphan", short(c.Start()))
	case "mknod":
		dev, _ := strconv.Atoi(a[1])
		err := syscall.Mknod(a[0], syscall.S_IFBLK|0o600, dev)
		_, oerr := os.Open(a[0])
		fmt.Println("mknod", short(err), "open", short(oerr))
	case "mount":
		fmt.Println("mount", short(syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, "")))
	case "attack": // what root with every capability might try; a[0] is a file of the host's
		for _, t := range attacks(a[0]) {
			fmt.Println(t.name, short(t.try()))
		}
	case "remount":
		fmt.Println("remount", a[0], short(syscall.Mount("", a[0], "", syscall.MS_REMOUNT|syscall.MS_BIND, "")))
	case "umount":
		fmt.Println("umount", a[0], short(syscall.Unmount(a[0], syscall.MNT_DETACH)))
	case "chown":
		fmt.Println("chown", a[0], short(os.Chown(a[0], 0, 0)))
	case "unshare":
		fmt.Println("unshare", short(syscall.Unshare(syscall.CLONE_NEWUSER)))
	case "nosuchcall":
		_, _, e := syscall.Syscall(5000, 0, 0, 0)
		fmt.Println("nosuchcall", e.Error())
	case "mkdir":
		fmt.Println("mkdir", short(os.Mkdir(a[0], 0o755)))
	case "listen":
		l, err := net.Listen("tcp", a[0])
		fmt.Println("listen", short(err))
		if err != nil {
			os.Exit(1)
		}
		c, err := l.Accept()
		if err == nil {
			fmt.Fprintln(c, "hello from inside")
			c.Close()
		}
	case "burn":
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		}
	case "sigpipe":
		s := bufio.NewScanner(os.Stdin)
		fmt.Println("up")
		s.Scan()
		for i := range 10 {
			fmt.Println("line", i)
		}
		os.Exit(9)
	case "mounts":
		b, _ := os.ReadFile("/proc/self/mountinfo")
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			for _, want := range a {
				if f[4] == want {
					fmt.Println("mount", f[4], f[5], strings.Join(f[6:8], " "))
				}
			}
		}
	case "tty":
		b := make([]byte, 0)
		_ = b
		st, err := os.Stat("/dev/console")
		to, _ := os.Readlink("/proc/self/fd/0")
		fmt.Println("tty", short(err), st.Mode(), to)
	default:
		fmt.Println("unknown verb", verb)
		os.Exit(99)
	}
}

// first is the device that a path is on.
func first(path string) uint64 {
	var st syscall.Stat_t
	_ = syscall.Stat(path, &st)
	return st.Dev
}

// short is the last part of an error.
// ofSession is KEY_SPEC_SESSION_KEYRING.
const ofSession = ^uintptr(2)

// text is a string as the kernel reads it. What it is in is not collected.
func text(s string) uintptr {
	b := append([]byte(s), 0)
	texts = append(texts, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

var texts [][]byte

func short(err error) string {
	if err == nil {
		return "ok"
	}
	s := err.Error()
	return strings.TrimSpace(s[strings.LastIndex(s, ": ")+1:])
}
