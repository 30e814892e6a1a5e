package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// A security module (AppArmor, SELinux) gives a program its label when it is executed, if the
// thread that executes it has asked for one. It is asked through /proc, and never
// through the one that the image's files may be in the way of (CVE-2025-52881).

// label asks for the program's labels. Nothing else may be executed after it.
func (s *stager) label() error {
	for _, l := range s.p.Process.Labels {
		proc, err := s.procfs()
		if err != nil {
			return err
		}
		fd, err := openat2(proc, "thread-self/"+l.Attr, syscall.O_WRONLY, 0, resolveBeneath|resolveNoXdev)
		if err == nil {
			_, err = syscall.Write(fd, []byte(l.Text))
			syscall.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("label the program with %q: %w", l.Text, err)
		}
	}
	return nil
}

// labelRoot labels the root of a new mount, which is reached by going there. One that
// refuses keeps the label that the policy gives it.
func (s *stager) labelRoot(fd int, label string) {
	err := syscall.Fchdir(fd)
	if err == nil {
		err = errors.Join(syscall.Setxattr(".", fileLabel, []byte(label), 0), syscall.Chdir("/"))
	}
	if err != nil {
		s.tolerate("file label %q refused: %v", label, err)
	}
}

// fileLabel is the extended attribute that SELinux keeps a file's label in.
const fileLabel = "security.selinux"

// labelsLater says that another program of ours executes the container's, in a user
// namespace, and asks for its labels.
func (s *stager) labelsLater() bool {
	return len(s.p.Process.Labels) > 0 && s.entersLater()
}

// addLabels is label as calls, for a program that is executed by another one: the
// kernel takes no label from a file that was opened before an execve.
func (s *stager) addLabels(c *calls, add adder) {
	if !s.labelsLater() {
		return
	}
	taken := []int{control, s.user, s.time, s.agent, s.proc}
	for i := range 3 + s.p.Process.Preserved {
		taken = append(taken, i)
	}
	fd := 0
	for slices.Contains(taken, fd) {
		fd++ // the kernel gives the lowest number
	}
	for _, l := range s.p.Process.Labels {
		add("label the program", syscall.SYS_OPENAT, uint64(s.proc), c.str("thread-self/"+l.Attr), syscall.O_WRONLY)
		add("label the program with "+l.Text, syscall.SYS_WRITE, uint64(fd), c.str(l.Text), uint64(len(l.Text)))
		add("close", syscall.SYS_CLOSE, uint64(fd))
	}
	add("close", syscall.SYS_CLOSE, uint64(s.proc))
}
