package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// A container that comes out of a checkpoint has its processes made by criu. The stage is
// their parent, as of those of another runtime: it mounts the root, has criu fill it
// with processes, which are stopped, and lets them go on when it is told to.

// restore never returns unless something fails before the container is there.
func (s *stager) restore(f *plan.Restore) error {
	if err := s.restoreRoot(); err != nil {
		return err
	}
	pid, err := s.bringBack(f)
	if err != nil {
		return err
	}
	if err := tell(plan.Report{Ready: true, PID: pid, Notes: s.notes}); err != nil {
		return err
	}
	if f.Leave {
		os.Exit(0)
	}
	if err := awaitStart(control); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // nobody is there to start it
	} else if err := s.wake(f, pid); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it would wait for ever
		s.outlive(pid, plan.Report{Error: err.Error(), Code: 128})
	}
	s.outlive(pid, plan.Report{})
	return nil
}

// restoreRoot mounts the root, with a place in it for each mount: criu makes none.
func (s *stager) restoreRoot() error {
	if err := s.seclude(syscall.MS_SLAVE | syscall.MS_REC); err != nil {
		return err
	}
	if err := s.placeRoot(); err != nil {
		return err
	}
	for i := range s.p.Mounts {
		m := &s.p.Mounts[i]
		if s.onAnother(i) {
			continue
		}
		place, err := s.target(m.Target, !m.File, resolveFor(m))
		if err != nil {
			return fmt.Errorf("place for a mount on %q: %w", m.Target, err)
		}
		syscall.Close(place)
	}
	return s.sealRoot()
}

// onAnother says whether a mount is on one before it, and not on the root.
func (s *stager) onAnother(i int) bool {
	target := path.Clean(s.p.Mounts[i].Target)
	for _, below := range s.p.Mounts[:i] {
		if dir := path.Clean(below.Target); target == dir || strings.HasPrefix(target, dir+"/") {
			return true
		}
	}
	return false
}

// bringBack runs criu, in the container's cgroups, and gives the first process's number.
func (s *stager) bringBack(f *plan.Restore) (int, error) {
	files, err := restoreFiles(f)
	if err != nil {
		return 0, err
	}
	defer func() { closeFiles(files) }()
	pid, err := s.spawnWithin(f, files)
	if err != nil {
		return 0, fmt.Errorf("start %q: %w", f.Path, err)
	}
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, 0, nil)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(pid, &ws, 0, nil)
	}
	if err != nil {
		return 0, os.NewSyscallError("wait4", err)
	}
	if ws.ExitStatus() != 0 {
		return 0, fmt.Errorf("exit status %d", exitCode(ws))
	}
	if err := s.halted(f); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(f.PidFile)
	if err != nil {
		return 0, err
	}
	first, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || first <= 1 {
		return 0, fmt.Errorf("%q has brought back no process: %q", f.Path, text)
	}
	return first, nil
}

// restoreFiles are the descriptors of the program.
func restoreFiles(f *plan.Restore) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
			files = nil
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return files, err
	}
	files = append(files, null)
	for range 2 {
		words, err := os.OpenFile(f.Words, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return files, err
		}
		files = append(files, words)
	}
	for fd := range 3 {
		own, err := syscall.Dup(fd)
		if err != nil {
			return files, os.NewSyscallError("dup", err)
		}
		syscall.CloseOnExec(own)
		files = append(files, os.NewFile(uintptr(own), "stdio"))
	}
	for _, path := range f.Open {
		fd, err := openFD(path, syscall.O_RDONLY)
		if err != nil {
			return files, err
		}
		files = append(files, os.NewFile(uintptr(fd), path))
	}
	return files, nil
}

// spawnWithin starts the program in the container's cgroups, where this process is not:
// it would end with them. A thread joins those of v1, and is not used again.
func (s *stager) spawnWithin(f *plan.Restore, files []*os.File) (int, error) {
	args, env, err := haltedBy(f)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: env, Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, file := range files {
		attr.Files = append(attr.Files, file.Fd())
	}
	if f.CgroupNS {
		attr.Sys.Unshareflags = cloneNewcgroup
	}
	if f.Cgroup != "" {
		dir, err := openFD(f.Cgroup, oPath|syscall.O_DIRECTORY)
		if err != nil {
			return 0, err
		}
		defer syscall.Close(dir)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	}
	type born struct {
		pid int
		err error
	}
	done := make(chan born, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := s.joinCgroups(); err != nil {
			done <- born{0, err}
			return
		}
		pid, err := spawn(f.Path, append([]string{f.Path}, args...), attr)
		done <- born{pid, err}
	}()
	b := <-done
	return b.pid, b.err
}

// wake lets the container's processes go on: each of them has been stopped.
func (s *stager) wake(f *plan.Restore, first int) error {
	procs := f.Cgroup + "/cgroup.procs"
	if len(s.p.CgroupProcs) > 0 { // of v1
		procs = path.Dir(s.p.CgroupProcs[0]) + "/cgroup.procs"
	}
	if err := signalGroup(procs, syscall.SIGCONT, func(pid int) bool { return pid == first }); err != nil {
		return err
	}
	return os.NewSyscallError("kill", syscall.Kill(first, syscall.SIGCONT))
}
