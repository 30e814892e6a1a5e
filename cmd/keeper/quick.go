package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Probes execute a program in a container every few seconds. A stage costs them
// the start of a Go program; without a terminal everything that a stage does is a
// list of system calls that is known beforehand, so the little program of calls.go
// does it. Whatever it cannot do, or fails at, a stage does again, and says in
// words what is wrong.

// errSlow sends an exec to a stage.
var errSlow = errors.New("this takes a stage")

// maxLookups bounds how many threads a container can keep waiting by files that do
// not answer.
const maxLookups = 32

// lookups has a place for each exec that looks at a container's files.
var lookups = make(chan struct{}, maxLookups) //nolint:gochecknoglobals // the keeper is one process

// quickExec runs a process in a container without a stage.
func quickExec(r *plan.Request, fds []int, stdio []uintptr) (*os.File, plan.Answer, error) {
	none := plan.Answer{}
	s, err := quickStager(r, fds)
	if err != nil {
		return nil, none, err
	}
	var opened []int
	defer func() { closeAll(opened) }()
	open := func(path string, flags int) (int, error) {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
		if err == nil {
			opened = append(opened, fd)
		}
		return fd, err
	}
	control, theirs, err := pair()
	if err != nil {
		return nil, none, err
	}
	defer control.close()
	defer theirs.Close()
	files := slices.Concat(stdio, []uintptr{uintptr(fds[1]), theirs.Fd()})
	q := quick{s: s, keep: quickTarget + 2}
	if ns := s.p.Process.UserNS; ns != "" {
		fd, err := open(ns, syscall.O_RDONLY)
		if err != nil {
			return nil, none, err
		}
		s.user, files = len(files), append(files, uintptr(fd))
		q.keep = len(files)
	}
	q.tasks = len(files)
	for _, path := range s.p.CgroupProcs {
		fd, err := open(path, syscall.O_WRONLY)
		if err != nil {
			return nil, none, err
		}
		files = append(files, uintptr(fd))
	}
	q.self = len(files)
	list, err := s.lastCalls(q.enter)
	if err != nil {
		return nil, none, err
	}
	exe, err := memfd("sampan-exec", list.elf(callLoop(controlFD)))
	if err != nil {
		return nil, none, err
	}
	opened, files = append(opened, exe), append(files, uintptr(exe))
	p := program{"/proc/self/fd/" + strconv.Itoa(q.self), []string{"sampan-exec"}}
	pid, pidfd, err := fork(r.Child, p, files)
	theirs.Close()
	if err != nil {
		return nil, none, err
	}
	if _, _, _, err := execReports(control); err != nil {
		killAndReap(pidfd)
		return nil, none, err
	}
	return pidfd, plan.Answer{PID: pid}, nil
}

// quickStager reads the plan and finds the program, as a stage would in the
// container, through the root of the container's first process.
func quickStager(r *plan.Request, fds []int) (*stager, error) {
	p, err := planOf(fds[0])
	if err != nil || p.Version != plan.Version || p.Kind != plan.Exec || p.Process.TTY || p.Process.Preserved > 0 || callLoop(controlFD) == nil {
		return nil, errSlow
	}
	select {
	case lookups <- struct{}{}:
		defer func() { <-lookups }()
	default:
		return nil, errSlow
	}
	proc, ok := strings.CutSuffix(r.Child.PIDNS, "ns/pid")
	if !ok {
		return nil, errSlow
	}
	root, err := syscall.Open(proc+"root", oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(root)
	if ended, _ := pidfdState(fds[1]); ended { // and the number may be another's
		return nil, errSlow
	}
	s := &stager{p: p, user: -1, proc: -1, root: root}
	s.homeBelow(root)
	s.path, err = lookupBelow(root, &p.Process)
	return s, err
}

func planOf(fd int) (*plan.Plan, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > maxPlan {
		return nil, fmt.Errorf("a plan of %d bytes", st.Size)
	}
	b := make([]byte, st.Size)
	n, err := syscall.Pread(fd, b, 0)
	if err != nil {
		return nil, err
	}
	p := &plan.Plan{}
	return p, json.Unmarshal(b[:n], p)
}

// openBelow opens a file of a container without ever leaving it.
func openBelow(root int, name string, flags int) (int, error) {
	how := openHow{Flags: uint64(flags | syscall.O_CLOEXEC), Resolve: inRoot}
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	fd, _, e := syscall.Syscall6(sysOpenat2, uintptr(root), uintptr(unsafe.Pointer(p)),
		uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	return int(fd), check(e)
}

// homeBelow is home, seen from outside.
func (s *stager) homeBelow(root int) {
	p := &s.p.Process
	for _, e := range p.Env {
		if strings.HasPrefix(e, "HOME=") && e != "HOME=" {
			return
		}
	}
	var text []byte
	if fd, err := openBelow(root, "etc/passwd", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY); err == nil {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			text = make([]byte, min(st.Size, maxPasswd))
			n, _ := syscall.Pread(fd, text, 0)
			text = text[:max(n, 0)]
		}
		syscall.Close(fd)
	}
	p.Env = append(p.Env, "HOME="+homeIn(string(text), p.UID))
}

// lookupBelow is lookup, seen from outside: what is not plainly there and
// executable is a stage's to judge.
func lookupBelow(root int, p *plan.Process) (string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", errSlow
	}
	name, dirs := p.Args[0], []string{""}
	if !strings.Contains(name, "/") {
		for _, e := range p.Env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				dirs = filepath.SplitList(v)
			}
		}
	}
	for _, dir := range dirs {
		full := name
		if dir != "" {
			full = dir + "/" + name
		} else if !strings.Contains(name, "/") {
			full = "./" + name
		}
		at := full
		if !path.IsAbs(at) {
			at = path.Join("/", p.Cwd, at)
		}
		if executableBelow(root, at) {
			return full, nil
		}
	}
	return "", errSlow
}

func executableBelow(root int, name string) bool {
	fd, err := openBelow(root, name, oPath)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	return syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG && st.Mode&0o111 != 0
}

// quick is where the descriptors of a little program are: its stdio, the pidfd of
// the container, the control socket, a user namespace, cgroups, itself.
type quick struct {
	s           *stager
	tasks, self int
	keep        int // the first that the container must not see
}

// quickTarget is the pidfd, in the place where a stage has its plan.
const quickTarget = planFD

// enter are the calls of stager.exec and of the beginning of become.
func (q quick) enter(c *calls, add adder) {
	p := q.s.p
	zero := c.str("0")
	for i := range p.CgroupProcs {
		add("join cgroup", syscall.SYS_WRITE, uint64(q.tasks+i), zero, 1)
	}
	if adj := p.Process.OOMScoreAdj; adj != nil {
		text := strconv.Itoa(*adj)
		free := uint64(q.self + 1) // the lowest, so the kernel's choice
		for _, call := range [][5]uint64{
			{syscall.SYS_OPENAT, ^uint64(99), c.str("/proc/self/oom_score_adj"), syscall.O_WRONLY, 0},
			{syscall.SYS_WRITE, free, c.str(text), uint64(len(text)), 0},
			{syscall.SYS_CLOSE, free, 0, 0, 0},
		} {
			add("oom_score_adj", uintptr(call[0]), call[1:]...)
			c.list[len(c.list)-1].Flags = mayFail
		}
	}
	const all = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS | cloneNewcgroup
	add("join the container's namespaces", sysSetns, quickTarget, all)
	add("close", syscall.SYS_CLOSE, quickTarget)
	add("close all others", sysCloseRange, uint64(q.keep), maxFD, 0)
	cwd := p.Process.Cwd
	if cwd == "" {
		cwd = "/"
	}
	add("chdir to "+cwd, syscall.SYS_CHDIR, c.str(cwd))
	add("working directory is outside of the root", syscall.SYS_GETCWD, c.put(make([]byte, pageSize)), pageSize)
	c.list[len(c.list)-1].Flags = isAbsolute
	for _, l := range p.Process.Rlimits {
		limit := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, l.Soft), l.Hard)
		add("rlimit", syscall.SYS_PRLIMIT64, 0, uint64(l.Type), c.put(limit), 0)
	}
	mask := 0o022
	if p.Process.Umask != nil {
		mask = *p.Process.Umask
	}
	add("umask", syscall.SYS_UMASK, uint64(mask))
}
