package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Another OCI runtime may be asked to put a container together. The stage then does
// not become the container: it mounts the root where the runtime looks for it, in
// a mount namespace of its own that ends with it; it is the parent that the runtime
// leaves the container to; and it starts it when it is told to.

const (
	prSetChildSubreaper = 36
	// maxRuntimeWords bounds what is read of a runtime's log.
	maxRuntimeWords = 8 << 10
	// lingers is how long a container's zombie stays for the keeper, which is not its
	// parent, to read how it has ended.
	lingers = time.Second
)

// foreign runs the stage of a container of another runtime. It never returns
// unless something fails before the container runs.
func (s *stager) foreign() error {
	f := s.p.Foreign
	if err := check(rawPrctl(prSetChildSubreaper, 1)); err != nil {
		return fmt.Errorf("become a reaper: %w", err)
	}
	setName("sampan-parent")
	if f.Restore != nil {
		return s.restore(f.Restore)
	}
	if err := s.foreignRoot(); err != nil {
		return err
	}
	args := []string{"create", "--bundle", f.Bundle, "--pid-file", f.Bundle + "/pid"}
	console := -1
	if s.p.Process.TTY {
		fd, err := listenConsole(f.Bundle + "/tty")
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		console, args = fd, append(args, "--console-socket", f.Bundle+"/tty")
	}
	if err := runtimeCall(f, append(args, f.ID)...); err != nil {
		return s.neverBorn(err)
	}
	var master []int
	if console >= 0 {
		fd, err := acceptConsole(console)
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		master = []int{fd}
	}
	text, err := os.ReadFile(f.Bundle + "/pid")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("runtime %q has made no process: %q", f.Path, text)
	}
	if err := tell(plan.Report{Ready: true, PID: pid, Notes: s.notes}, master...); err != nil {
		return err
	}
	closeAll(master)
	if err := awaitStart(control); err == nil {
		if err := runtimeCall(f, "start", f.ID); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it would wait for ever
			s.outlive(pid, plan.Report{Error: err.Error(), Code: 128})
		}
	} else {
		_ = syscall.Kill(pid, syscall.SIGKILL) // nobody is there to start it
	}
	s.outlive(pid, plan.Report{})
	return nil
}

// neverBorn is a container that its runtime could not create, for a program that is
// not there as well as for a mount: that is told when it is to be started.
func (s *stager) neverBorn(why error) error {
	if err := tell(plan.Report{Ready: true, Notes: s.notes}); err != nil {
		return err
	}
	if err := awaitStart(control); err != nil {
		os.Exit(1) // nobody is there to hear it
	}
	return why
}

// outlive says what has become of the start (nothing, when it worked), and ends when
// the container has.
func (s *stager) outlive(pid int, rep plan.Report) {
	if rep.Error != "" {
		_ = tell(rep) // to whoever still listens
	}
	closeAll([]int{control, 0, 1, 2}) // the container's output ends with the container
	info := [128]byte{}
	for {
		const pPid = 1
		_, _, e := syscall.Syscall6(syscall.SYS_WAITID, pPid, uintptr(pid), uintptr(unsafe.Pointer(&info)), waitExited|waitNowait, 0, 0)
		if e != syscall.EINTR {
			break
		}
	}
	time.Sleep(lingers)
	os.Exit(0)
}

// foreignRoot mounts the root at its place.
func (s *stager) foreignRoot() error {
	if err := s.seclude(syscall.MS_SLAVE | syscall.MS_REC); err != nil {
		return err
	}
	err := s.placeRoot()
	syscall.Close(s.root)
	s.root = -1
	return err
}

// runtimeCall runs one command of the runtime. What is wrong is in its log, or it has
// said it on the container's stderr.
func runtimeCall(f *plan.ForeignRuntime, args ...string) error {
	log := f.Bundle + "/log"
	_ = os.Remove(log) // there may be none
	argv := append([]string{f.Path, "--root", f.Bundle + "/state", "--log", log}, args...)
	pid, err := spawn(f.Path, argv, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return fmt.Errorf("runtime %q: %w", f.Path, err)
	}
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, 0, nil)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(pid, &ws, 0, nil)
	}
	if err != nil || ws.ExitStatus() != 0 {
		return fmt.Errorf("runtime %q: %s: %s", f.Path, args[0], lastWordsOf(log, ws, err))
	}
	return nil
}

func lastWordsOf(log string, ws syscall.WaitStatus, err error) string {
	if err != nil {
		return err.Error()
	}
	b, _ := os.ReadFile(log)
	text := strings.TrimSpace(string(b[:min(len(b), maxRuntimeWords)]))
	if text == "" {
		return "exit status " + strconv.Itoa(ws.ExitStatus())
	}
	return text
}

func rawPrctl(op, arg uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, op, arg, 0)
	return e
}

// listenConsole is where the runtime sends a terminal's master.
func listenConsole(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return -1, err
	}
	return fd, syscall.Listen(fd, 1)
}

// acceptConsole takes it; the runtime has connected and gone by then.
func acceptConsole(listener int) (int, error) {
	defer syscall.Close(listener)
	if err := syscall.SetNonblock(listener, true); err != nil {
		return -1, err
	}
	conn, _, err := syscall.Accept4(listener, syscall.SOCK_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(conn)
	var b [256]byte
	oob := make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := syscall.Recvmsg(conn, b[:], oob, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	fds := rights(oob[:n])
	if len(fds) != 1 {
		closeAll(fds)
		return -1, errors.New("the runtime has sent no terminal")
	}
	return fds[0], nil
}
