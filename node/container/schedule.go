package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Scheduling policies and flags by the kernel's numbers (linux/sched.h).
var (
	schedPolicies = map[specs.LinuxSchedulerPolicy]uint32{ //nolint:gochecknoglobals // a constant table
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4,
		specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	schedFlags = map[specs.LinuxSchedulerFlag]uint64{ //nolint:gochecknoglobals // a constant table
		specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04,
		specs.SchedFlagKeepPolicy: 0x08, specs.SchedFlagKeepParams: 0x10,
		specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
	}
	ioClasses = map[specs.IOPriorityClass]int{ //nolint:gochecknoglobals // a constant table
		specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
	}
)

// schedAttrSize is that of the first version of the kernel's sched_attr.
const schedAttrSize = 48

// planSchedule translates process.scheduler and process.ioPriority; nil when there is
// neither. The kernel judges the numbers.
func planSchedule(in *specs.Process) (*plan.Schedule, error) {
	if in.Scheduler == nil && in.IOPriority == nil {
		return nil, nil
	}
	out := &plan.Schedule{}
	if s := in.Scheduler; s != nil {
		attr, err := schedAttr(s)
		if err != nil {
			return nil, err
		}
		out.Attr = attr
	}
	if io := in.IOPriority; io != nil {
		class, ok := ioClasses[io.Class]
		if !ok {
			return nil, fmt.Errorf("I/O priority class %q is not known", io.Class)
		}
		const levels, classShift = 8, 13
		if io.Priority < 0 || io.Priority >= levels {
			return nil, fmt.Errorf("I/O priority %d: must be between 0 and %d", io.Priority, levels-1)
		}
		out.IOPriority = class<<classShift | io.Priority
	}
	return out, nil
}

// schedAttr is the structure that sched_setattr(2) takes.
func schedAttr(s *specs.Scheduler) ([]byte, error) {
	policy, ok := schedPolicies[s.Policy]
	if !ok {
		return nil, fmt.Errorf("scheduling policy %q is not known", s.Policy)
	}
	var flags uint64
	for _, name := range s.Flags {
		flag, ok := schedFlags[name]
		if !ok {
			return nil, fmt.Errorf("scheduling flag %q is not known", name)
		}
		flags |= flag
	}
	if s.Priority < 0 {
		return nil, fmt.Errorf("scheduling priority %d is negative", s.Priority)
	}
	le := binary.LittleEndian
	b := le.AppendUint32(make([]byte, 0, schedAttrSize), schedAttrSize)
	b = le.AppendUint32(b, policy)
	b = le.AppendUint64(b, flags)
	b = le.AppendUint32(b, uint32(s.Nice))
	b = le.AppendUint32(b, uint32(s.Priority))
	for _, ns := range []uint64{s.Runtime, s.Deadline, s.Period} {
		b = le.AppendUint64(b, ns)
	}
	return b, nil
}

// planAffinity adds the processors that an exec begins and goes on with
// (process.execCPUAffinity).
func planAffinity(p *plan.Process, a *specs.CPUAffinity) error {
	if a == nil || a.Initial == "" && a.Final == "" {
		return nil
	}
	before, err := cpuMask(a.Initial)
	if err != nil {
		return fmt.Errorf("CPU affinity: initial: %w", err)
	}
	after, err := cpuMask(a.Final)
	if err != nil {
		return fmt.Errorf("CPU affinity: final: %w", err)
	}
	if p.Schedule == nil {
		p.Schedule = &plan.Schedule{}
	}
	p.Schedule.CPUsBefore, p.Schedule.CPUsAfter = before, after
	return nil
}

// maxCPUs bounds the processors that a mask names; no kernel is built for more.
const maxCPUs = 8192

// cpuMask is a list such as "0-2,7" as sched_setaffinity(2) takes it; nil when it is empty.
func cpuMask(list string) ([]byte, error) {
	mask, ok := bitMask(list, maxCPUs)
	if !ok {
		return nil, fmt.Errorf("%q is not a list of processors below %d", list, maxCPUs)
	}
	return mask, nil
}

// bitMask is a list of numbers below most in words of the kernel, one bit a number.
func bitMask(list string, most uint64) (mask []byte, ok bool) {
	if list == "" {
		return nil, true
	}
	mask = make([]byte, most/8)
	end := 0
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err := errors.Join(err1, err2); err != nil || from > to || to >= most {
			return nil, false
		}
		for cpu := from; cpu <= to; cpu++ {
			mask[cpu/8] |= 1 << (cpu % 8)
			end = max(end, int(cpu)+1)
		}
	}
	const word = 64
	return mask[:(end+word-1)/word*word/8], true
}

// Memory policies and flags by the kernel's numbers (linux/mempolicy.h).
var (
	memoryModes = map[specs.MemoryPolicyModeType]uint32{ //nolint:gochecknoglobals // a constant table
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
		specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}
	memoryFlags = map[specs.MemoryPolicyFlagType]uint32{ //nolint:gochecknoglobals // a constant table
		specs.MpolFStaticNodes: 1 << 15, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFNumaBalancing: 1 << 13,
	}
)

// MemoryModes are the modes of a memory policy that a spec may have, sorted.
func MemoryModes() []string { return sortedNames(memoryModes) }

// MemoryFlags are the flags of a memory policy that a spec may have, sorted.
func MemoryFlags() []string { return sortedNames(memoryFlags) }

func sortedNames[K ~string](table map[K]uint32) []string {
	var out []string
	for name := range table {
		out = append(out, string(name))
	}
	slices.Sort(out)
	return out
}

// maxNodes bounds the memory nodes that a policy names; no kernel is built for more.
const maxNodes = 1024

// memoryPolicy translates linux.memoryPolicy; nil when there is none. Which nodes a mode
// must have is for the kernel to say, but that some have none: it would ignore them.
func memoryPolicy(in *specs.LinuxMemoryPolicy) (*plan.MemoryPolicy, error) {
	if in == nil {
		return nil, nil
	}
	mode, ok := memoryModes[in.Mode]
	if !ok {
		return nil, fmt.Errorf("invalid memory policy mode %q", in.Mode)
	}
	for _, name := range in.Flags {
		flag, ok := memoryFlags[name]
		if !ok {
			return nil, fmt.Errorf("invalid memory policy flag %q", name)
		}
		mode |= flag
	}
	nodes, ok := bitMask(in.Nodes, maxNodes)
	if !ok {
		return nil, fmt.Errorf("invalid memory policy nodes %q: must be a list of numbers below %d", in.Nodes, maxNodes)
	}
	named := 0
	for _, b := range nodes {
		named += bits.OnesCount8(b)
	}
	if named > 0 && (in.Mode == specs.MpolDefault || in.Mode == specs.MpolLocal) {
		return nil, fmt.Errorf("memory policy %s: mode requires 0 nodes but got %d", in.Mode, named)
	}
	return &plan.MemoryPolicy{Mode: mode, Nodes: nodes}, nil
}

// personality translates linux.personality, which has no flags yet; nil when there is
// none.
func personality(p *specs.LinuxPersonality) (*uint32, error) {
	if p == nil {
		return nil, nil
	}
	if len(p.Flags) > 0 {
		return nil, fmt.Errorf("personality flags %q: no flag is known", p.Flags)
	}
	domains := map[specs.LinuxPersonalityDomain]uint32{specs.PerLinux: 0, specs.PerLinux32: 8}
	domain, ok := domains[p.Domain]
	if !ok {
		return nil, fmt.Errorf("personality %q is not known", p.Domain)
	}
	return &domain, nil
}
