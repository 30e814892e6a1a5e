package main

import (
	"bytes"
	"fmt"
	"syscall"
	"unsafe"
)

// ioprioWhoProcess says that a priority is a process's.
const ioprioWhoProcess = 1

// beginOn keeps this thread to the processors that the program begins with, while it is
// in the cgroups that it comes from.
func (s *stager) beginOn() error {
	if sched := s.p.Process.Schedule; sched != nil {
		return setAffinity(sched.CPUsBefore)
	}
	return nil
}

// anywhere gives this thread every processor that its cgroups allow, unless the plan says
// which: what whoever starts containers is kept to is not theirs.
func (s *stager) anywhere() {
	if sched := s.p.Process.Schedule; sched != nil && len(sched.CPUsBefore)+len(sched.CPUsAfter) > 0 {
		return
	}
	if err := setAffinity(bytes.Repeat([]byte{0xff}, maxCPUs/8)); err != nil {
		s.tolerate("%v", err)
	}
}

// maxCPUs bounds the processors of a kernel.
const maxCPUs = 8192

// schedule says what share of processors and disks the program has, and which kind of
// machine it sees. It takes capabilities that the program may not have.
func (s *stager) schedule() error {
	if p := s.p.Process.Personality; p != nil {
		if _, _, e := syscall.RawSyscall(syscall.SYS_PERSONALITY, uintptr(*p), 0, 0); e != 0 {
			return fmt.Errorf("set personality %#x: %w", *p, e)
		}
	}
	if m := s.p.Process.Memory; m != nil {
		var nodes *byte
		if len(m.Nodes) > 0 {
			nodes = &m.Nodes[0]
		}
		most := uintptr(len(m.Nodes)*8 + 1) // the kernel takes one away
		if _, _, e := syscall.RawSyscall(sysSetMempolicy, uintptr(m.Mode), uintptr(unsafe.Pointer(nodes)), most); e != 0 {
			return fmt.Errorf("set memory policy %#x: %w", m.Mode, e)
		}
	}
	sched := s.p.Process.Schedule
	if sched == nil {
		return nil
	}
	if err := setAffinity(sched.CPUsAfter); err != nil {
		return err
	}
	if len(sched.Attr) > 0 {
		_, _, e := syscall.RawSyscall(sysSchedSetattr, 0, uintptr(unsafe.Pointer(&sched.Attr[0])), 0)
		if e != 0 {
			return fmt.Errorf("set scheduler: %w", e)
		}
	}
	if sched.IOPriority != 0 {
		if _, _, e := syscall.RawSyscall(sysIoprioSet, ioprioWhoProcess, 0, uintptr(sched.IOPriority)); e != 0 {
			return fmt.Errorf("set I/O priority %#x: %w", sched.IOPriority, e)
		}
	}
	return nil
}

func setAffinity(mask []byte) error {
	if len(mask) == 0 {
		return nil
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if e != 0 {
		return fmt.Errorf("set CPU affinity: %w", e)
	}
	return nil
}
