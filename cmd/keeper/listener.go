package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// A seccomp filter may ask somebody about calls (SCMP_ACT_NOTIFY), who is given a
// descriptor for it (runtime-spec, config-linux.md, "seccomp"). The filter holds for us
// as well, from when there is a descriptor to give: this program cannot know which calls
// its Go runtime makes meanwhile. The little one of calls.go does, which makes but one.

// callListener connects to who is asked, while its path can be seen.
func (s *stager) callListener() error {
	l := s.p.Process.Listener
	if l == nil {
		return nil
	}
	self, err := os.Readlink("/proc/self") // the number that everybody else knows it by
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return fmt.Errorf("own process: %w", err)
	}
	if s.told, err = tellListener(l, s.p.Kind, pid); err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: l.Path}); err != nil {
		syscall.Close(fd)
		return fmt.Errorf("failed to connect with seccomp agent %q: %w", l.Path, err) // runc's words
	}
	s.agent = fd
	return nil
}

// tellListener is the state with the numbers of the processes.
func tellListener(l *plan.Listener, kind plan.Kind, pid int) ([]byte, error) {
	state := map[string]any{}
	if err := json.Unmarshal([]byte(l.State), &state); err != nil {
		return nil, fmt.Errorf("read the listener's state: %w", err)
	}
	state["pid"] = pid
	container, ok := state["state"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the listener's state has no container: %w", syscall.EINVAL)
	}
	container["pid"], container["status"] = pid, "created"
	if kind == plan.Exec {
		container["pid"], container["status"] = l.PID, "running"
	}
	return json.Marshal(state)
}

// addListener sends the descriptor that the call before has given: the lowest that is free.
func (s *stager) addListener(c *calls, add adder) {
	if s.agent < 0 {
		return
	}
	given := 3 + s.p.Process.Preserved
	for slices.Contains([]int{control, s.agent}, given) {
		given++
	}
	le := binary.LittleEndian
	const rightsLength = 20 // of a header, and one descriptor
	rights := le.AppendUint64(nil, rightsLength)
	for _, n := range []int{syscall.SOL_SOCKET, syscall.SCM_RIGHTS, given, 0} {
		rights = le.AppendUint32(rights, uint32(n))
	}
	vector := le.AppendUint64(nil, c.put(s.told))
	vector = le.AppendUint64(vector, uint64(len(s.told)))
	var message []byte
	for _, n := range []uint64{0, 0, c.put(vector), 1, c.put(rights), uint64(len(rights)), 0} {
		message = le.AppendUint64(message, n)
	}
	add("tell the seccomp listener", syscall.SYS_SENDMSG, uint64(s.agent), c.put(message), syscall.MSG_NOSIGNAL)
}
