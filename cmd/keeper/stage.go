package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// The descriptors of a stage besides its stdio.
const (
	planFD      = 3
	controlFD   = 4
	targetFD    = 5 // exec: the pidfd of the container's first process
	preservedFD = 6 // the first of those that the program inherits
)

// control is where reports go: controlFD, until the program's own descriptors
// need that number.
var control = controlFD //nolint:gochecknoglobals // a stage is one process with one socket

// maxPlan bounds a plan: a container may have thousands of mounts, no more.
const maxPlan = 8 << 20

// stager turns this process into a container's. Everything happens on the first
// thread, which is the one that executes the program in the end: namespaces,
// credentials and filters of other threads die with them.
type stager struct {
	p     *plan.Plan
	notes []string
	proc  int // a private procfs, verified and detached, for writes below /proc
	root  int // the new root
	empty int // the mount that hides directories, once there is one
	// path is the program, looked up.
	path string
	user int // the user namespace to enter last, or -1
	time int // the time namespace to enter before that, or -1
	// agent is a socket of the seccomp filter's listener, or -1; told is what it is told.
	agent int
	told  []byte
	// state is what hooks read.
	state []byte
}

// failure is an error with the exit code that a shell would give.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// stage never returns: it becomes the program or says why it cannot.
func stage() {
	runtime.LockOSThread()
	setName("sampan-stage")
	s := &stager{proc: -1, root: -1, empty: -1, user: -1, time: -1, agent: -1}
	err := errors.Join(prctl(prSetDumpable, 0, 0), cloexecFrom(planFD))
	if err == nil {
		err = s.run()
	}
	rep := plan.Report{Error: err.Error(), Code: 128, Notes: s.notes}
	var f *failure
	if errors.As(err, &f) {
		rep.Code = f.code
	}
	if tell(rep) != nil { // nobody there: the container's own stderr must do
		_, _ = os.Stderr.WriteString(rep.Error + "\n")
	}
	os.Exit(rep.Code)
}

func (s *stager) run() error {
	from := os.NewFile(planFD, "plan")
	b, err := io.ReadAll(io.LimitReader(from, maxPlan))
	if err = errors.Join(err, from.Close()); err != nil { // it may be long until somebody starts this
		return fmt.Errorf("read plan: %w", err)
	}
	if err := json.Unmarshal(b, &s.p); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	if s.p.Version != plan.Version {
		return plan.ErrVersion
	}
	s.oomScore()
	if err := s.keyring(); err != nil {
		return err
	}
	if path := s.p.Process.UserNS; path != "" {
		if s.user, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
	if err := s.callListener(); err != nil {
		return err
	}
	if s.p.Kind == plan.Foreign { // not even in the container's cgroup
		return s.foreign()
	}
	if err := s.beginOn(); err != nil {
		return err
	}
	if err := s.joinCgroups(); err != nil {
		return err
	}
	s.anywhere()
	switch s.p.Kind {
	case plan.Exec:
		return s.exec()
	case plan.Pause:
		return s.pause()
	}
	return s.init()
}

// init builds the container's world, waits to be started and becomes its program.
func (s *stager) init() error {
	gate := controlFD
	if path := s.p.StartFIFO; path != "" {
		fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		gate = fd
	}
	if err := s.namespaces(); err != nil {
		return err
	}
	if err := s.buildRoot(); err != nil {
		return err
	}
	master, err := s.console()
	if err != nil {
		return err
	}
	if err := s.hooks(); err != nil {
		return err
	}
	if err := s.enterRoot(); err != nil {
		return err
	}
	s.nullInside()
	if s.p.StartFIFO != "" { // whoever starts us will not hear what is wrong
		if err := s.promising(); err != nil {
			return err
		}
	}
	s.foresee()
	if err := tell(plan.Report{Ready: true, Notes: s.notes}, master...); err != nil {
		return err
	}
	closeAll(master)
	if err := awaitStart(gate); err != nil {
		os.Exit(1) // the keeper is gone, and with it whoever would have started us
	}
	return s.become()
}

// exec joins a running container.
func (s *stager) exec() error {
	if err := check(rawUnshare(cloneFs)); err != nil {
		return fmt.Errorf("unshare fs: %w", err)
	}
	if len(s.p.Process.Labels) > 0 { // in there the kernel may refuse one that shows more than the container's own
		if _, err := s.procfs(); err != nil {
			return err
		}
	}
	if err := s.openTime(); err != nil {
		return err
	}
	const all = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS | cloneNewcgroup
	if err := setns(targetFD, all); err != nil {
		return fmt.Errorf("join the container's namespaces: %w", err)
	}
	if err := syscall.Chdir("/"); err != nil {
		return err
	}
	if s.p.Process.TTY {
		root, err := syscall.Open("/", oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.root = root
		master, err := s.openConsole(false)
		if err != nil {
			return err
		}
		if err := tell(plan.Report{Ready: true}, master...); err != nil {
			return err
		}
		closeAll(master)
	}
	return s.become()
}

// pause is pid 1 of a shared pid namespace. The kernel reaps its children.
func (s *stager) pause() error {
	if err := s.namespaces(); err != nil {
		return err
	}
	setName("sampan-pause")
	ignoreChildren()
	if err := tell(plan.Report{Ready: true, Notes: s.notes}); err != nil {
		return err
	}
	if err := awaitStart(controlFD); err != nil {
		os.Exit(1)
	}
	syscall.Close(controlFD) // the sign that the program runs
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func (s *stager) oomScore() {
	adj := s.p.Process.OOMScoreAdj
	if adj == nil {
		return
	}
	if err := writeFile("/proc/self/oom_score_adj", fmt.Sprint(*adj)); err != nil {
		s.tolerate("oom_score_adj %d refused: %v", *adj, err)
	}
}

// keyring gives the process a session keyring of its own, while /proc is the host's. The
// keeper's could be that of whoever has started it, with their keys.
func (s *stager) keyring() error {
	k := s.p.Process.Keyring
	if k.Keep {
		return nil
	}
	if k.Label != "" {
		if err := writeFile("/proc/thread-self/attr/keycreate", k.Label); err != nil {
			return fmt.Errorf("label keys with %q: %w", k.Label, err)
		}
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_KEYCTL, plan.JoinSession, 0, 0)
	if e != 0 && e != syscall.ENOSYS { // a kernel without keys
		return fmt.Errorf("make a session keyring: %w", e)
	}
	return nil
}

// tolerate notes a refusal of the kernel that does not stop the container.
func (s *stager) tolerate(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *stager) joinCgroups() error {
	for _, path := range s.p.CgroupProcs {
		if err := writeFile(path, "0"); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// namespaces joins those that exist and makes those that the fork could not.
func (s *stager) namespaces() error {
	if err := s.openTime(); err != nil {
		return err
	}
	for _, j := range s.p.Joins {
		if j.Flag == cloneNewtime {
			continue
		}
		if err := enter(j.Path, j.Flag); err != nil {
			return fmt.Errorf("join namespace: %w", err)
		}
	}
	if s.p.Unshare != 0 {
		if err := check(rawUnshare(s.p.Unshare)); err != nil {
			return fmt.Errorf("unshare namespaces %#x: %w", s.p.Unshare, err)
		}
	}
	if s.p.Unshare&syscall.CLONE_NEWNET != 0 {
		if err := loopback(); err != nil {
			s.tolerate("loopback device: %v", err)
		}
	}
	if err := s.setTime(); err != nil {
		return err
	}
	if h := s.p.Hostname; h != "" {
		if err := syscall.Sethostname([]byte(h)); err != nil {
			return fmt.Errorf("set hostname %q: %w", h, err)
		}
	}
	if d := s.p.Domainname; d != "" {
		if err := syscall.Setdomainname([]byte(d)); err != nil {
			return fmt.Errorf("set domainname %q: %w", d, err)
		}
	}
	return nil
}

// nullInside puts the container's null device in the place of the host's. One that has
// none, or may not open it, keeps the host's.
func (s *stager) nullInside() {
	if s.p.Process.Null == 0 {
		return
	}
	fd, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	const device = 1<<8 | 3
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != device {
		return
	}
	for i := range 3 {
		if s.p.Process.Null&(1<<i) != 0 {
			_ = syscall.Dup3(fd, i, 0) // the descriptor is there: it cannot fail
		}
	}
}

// sysctls are written through a procfs of our own that is attached nowhere, so
// that nothing in the image can be in the way.
func (s *stager) sysctls() error {
	if len(s.p.Sysctls) == 0 {
		return nil
	}
	proc, err := s.procfs()
	if err != nil {
		return err
	}
	for name, value := range s.p.Sysctls {
		path := name
		if !strings.Contains(name, "/") {
			path = strings.ReplaceAll(name, ".", "/")
		}
		fd, err := openat2(proc, "sys/"+path, syscall.O_WRONLY, 0, resolveBeneath|resolveNoSymlinks|resolveNoXdev)
		if err != nil {
			return fmt.Errorf("sysctl %q: %w", name, err)
		}
		_, err = syscall.Write(fd, []byte(value))
		syscall.Close(fd)
		if err != nil {
			return fmt.Errorf("sysctl %q: write %q: %w", name, value, err)
		}
	}
	return nil
}

func (s *stager) procfs() (int, error) {
	if s.proc >= 0 {
		return s.proc, nil
	}
	fd, err := newMount("proc", "proc", "", 0)
	if err != nil {
		return -1, err
	}
	if m, err := fsMagic(fd); err != nil || m != magicProc {
		return -1, fmt.Errorf("procfs has magic %#x: %w", m, errors.Join(err, syscall.EINVAL))
	}
	s.proc = fd
	return fd, nil
}

// tell sends a report to the keeper.
func tell(r plan.Report, fds ...int) error {
	b, err := plan.Encode(r)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	return syscall.Sendmsg(control, b, oob, nil, syscall.MSG_NOSIGNAL)
}

// awaitStart blocks until someone says go.
func awaitStart(gate int) error {
	var b [256]byte
	for {
		n, err := syscall.Read(gate, b[:])
		if err == syscall.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = io.EOF
		}
		return err
	}
}

func writeFile(path, text string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func rawUnshare(flags uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_UNSHARE, flags, 0, 0)
	return e
}
