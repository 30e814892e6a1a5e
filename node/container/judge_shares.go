package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// The images of a checkpoint also say how many files, processes and pages a process may
// have, how soon it dies for want of memory, and whom it goes before. What is above the
// container's own is cut to that, and no reason to refuse: the container may have been
// one with more.

// rlimits is how many limits a process has (asm-generic/resource.h).
const rlimits = 16

// level gives every restored process no more of the machine than the container's own
// program would have got; parent is the process that it would have begun as.
func level(pids []int, parent int, may *plan.Process) error {
	most, err := mostLimits(parent, may.Rlimits)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if reach(may)&(1<<unix.CAP_SYS_RESOURCE) == 0 {
			if err := errors.Join(levelLimits(pid, &most), levelOOM(pid, may.OOMScoreAdj)); err != nil {
				return err
			}
		}
		if err := levelSchedules(pid, may); err != nil {
			return err
		}
	}
	return nil
}

// mostLimits are the container's, and where it has none those of its parent.
func mostLimits(parent int, own []plan.Rlimit) (most [rlimits]unix.Rlimit, err error) {
	for kind := range most {
		if err := unix.Prlimit(parent, kind, nil, &most[kind]); err != nil {
			return most, fmt.Errorf("limit %d of process %d: %w", kind, parent, err)
		}
	}
	for _, l := range own {
		if l.Type < len(most) {
			most[l.Type] = unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		}
	}
	return most, nil
}

func levelLimits(pid int, most *[rlimits]unix.Rlimit) error {
	for kind := range most {
		var have unix.Rlimit
		if err := unix.Prlimit(pid, kind, nil, &have); err != nil {
			return fmt.Errorf("limit %d of process %d: %w", kind, pid, err)
		}
		if have.Max <= most[kind].Max {
			continue // the soft one a program may raise as far as that
		}
		cut := unix.Rlimit{Cur: min(have.Cur, most[kind].Cur), Max: most[kind].Max}
		if err := unix.Prlimit(pid, kind, &cut, nil); err != nil {
			return fmt.Errorf("set limit %d of process %d: %w", kind, pid, err)
		}
	}
	return nil
}

// levelOOM lets no process be spared longer than the container is.
func levelOOM(pid int, want *int) error {
	if want == nil {
		return nil
	}
	path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	text, err := readSmall(path)
	if err != nil {
		return err
	}
	have, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || have >= *want {
		return err
	}
	return os.WriteFile(path, []byte(strconv.Itoa(*want)), 0)
}

// levelSchedules gives every thread the container's processors, as its program begins with
// them, and its policy, if it has one that it could not have come to.
func levelSchedules(pid int, may *plan.Process) error {
	base, cpus := baseSchedule(may.Schedule)
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinityDynamic(tid, cpus); err != nil {
			return fmt.Errorf("processors of thread %d: %w", tid, err)
		}
		have, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return fmt.Errorf("scheduling of thread %d: %w", tid, err)
		}
		if reach(may)&(1<<unix.CAP_SYS_NICE) != 0 || comesTo(have, base) {
			continue
		}
		set := *base
		if err := unix.SchedSetAttr(tid, &set, 0); err != nil {
			return fmt.Errorf("set scheduling of thread %d: %w", tid, err)
		}
	}
	return nil
}

// baseSchedule is what the container's program begins with: everybody's, unless the spec
// says otherwise.
func baseSchedule(s *plan.Schedule) (*unix.SchedAttr, unix.CPUSetDynamic) {
	cpus := unix.NewCPUSet(maxCPUs)
	cpus.Fill()
	a := &unix.SchedAttr{Size: unix.SizeofSchedAttr}
	if s == nil || len(s.Attr) < schedAttrSize {
		return a, cpus
	}
	le, b := binary.LittleEndian, s.Attr
	a.Policy, a.Flags, a.Nice, a.Priority = le.Uint32(b[4:]), le.Uint64(b[8:]), int32(le.Uint32(b[16:])), le.Uint32(b[20:])
	a.Runtime, a.Deadline, a.Period = le.Uint64(b[24:]), le.Uint64(b[32:]), le.Uint64(b[40:])
	return a, cpus
}

// comesTo says whether a thread that begins with base could have come to what it has
// without a capability: it may only fall behind (sched(7)).
func comesTo(have, base *unix.SchedAttr) bool {
	idle := []uint32{unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE}
	if slices.Contains(idle, have.Policy) {
		return have.Nice >= base.Nice
	}
	return have.Policy == base.Policy && have.Priority <= base.Priority && have.Policy != unix.SCHED_DEADLINE
}
