package server

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/usage"
)

// nodeStats reads the whole machine's usage.
func (s *Server) nodeStats(images *stats.FsStats, everything bool) stats.NodeStats {
	now := metav1.Now()
	n := stats.NodeStats{NodeName: s.cfg.NodeName, StartTime: metav1.NewTime(booted())}
	if ticks, ok := busyTicks(); ok {
		used := ticks * nanosPerTick
		n.CPU = &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &used}
	}
	info := meminfo()
	if total, available := info["MemTotal:"], info["MemAvailable:"]; total > available {
		used, resident := total-available, info["AnonPages:"]
		n.Memory = &stats.MemoryStats{Time: now, AvailableBytes: &available, UsageBytes: &used, WorkingSetBytes: &used, RSSBytes: &resident}
		faults(n.Memory)
	}
	free, used := info["SwapFree:"], info["SwapTotal:"]-info["SwapFree:"]
	n.Swap = &stats.SwapStats{Time: now, SwapAvailableBytes: &free, SwapUsageBytes: &used}
	if !everything {
		return n
	}
	if n.CPU != nil {
		n.CPU.PSI = nodePressure("cpu")
	}
	if n.Memory != nil {
		n.Memory.PSI = nodePressure("memory")
	}
	if p := nodePressure("io"); p != nil {
		n.IO = &stats.IOStats{Time: now, PSI: p}
	}
	n.Network = nodeNetwork(now)
	if n.Fs = s.nodeDisk(); n.Fs != nil {
		inUse(n.Fs)
	}
	n.Runtime = &stats.RuntimeStats{ImageFs: images, ContainerFs: images}
	if o, ok := (pressure.Machine{}).Observe()[pressure.Pids]; ok {
		running := o.Capacity - o.Available
		n.Rlimit = &stats.RlimitStats{Time: now, MaxPID: &o.Capacity, NumOfRunningProcesses: &running}
	}
	return n
}

// systemContainers are the agent itself and all pods together, to which the node has
// limit bytes of memory to give, 0 for not known.
func systemContainers(sum *stats.Summary, limit uint64) []stats.ContainerStats {
	now := metav1.Now()
	var own syscall.Rusage
	list := []stats.ContainerStats{}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err == nil {
		nanos := uint64(own.Utime.Nano() + own.Stime.Nano()) //nolint:gosec // time does not run backwards
		c := stats.ContainerStats{Name: stats.SystemContainerKubelet, StartTime: sum.Node.StartTime, CPU: &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &nanos}}
		if f := fields("/proc/self/statm"); len(f) > 1 {
			if pages, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				bytes := pages * uint64(os.Getpagesize()) //nolint:gosec // positive
				// A cgroup's faults, which upstream tells, are all; a process's are the rest.
				all, major := uint64(own.Minflt+own.Majflt), uint64(own.Majflt) //nolint:gosec // they are counted
				c.Memory = &stats.MemoryStats{Time: now, UsageBytes: &bytes, WorkingSetBytes: &bytes, RSSBytes: &bytes, PageFaults: &all, MajorPageFaults: &major}
			}
		}
		list = append(list, c)
	}
	return append(list, together(sum, limit, now))
}

// together is what all pods use.
func together(sum *stats.Summary, limit uint64, now metav1.Time) stats.ContainerStats {
	var nanos, used, set, resident, faults, major, free uint64
	for _, p := range sum.Pods {
		if p.CPU != nil {
			add(&nanos, p.CPU.UsageCoreNanoSeconds)
		}
		if p.Memory != nil {
			add(&used, p.Memory.UsageBytes)
			add(&set, p.Memory.WorkingSetBytes)
			add(&resident, p.Memory.RSSBytes)
			add(&faults, p.Memory.PageFaults)
			add(&major, p.Memory.MajorPageFaults)
		}
	}
	out := stats.ContainerStats{
		Name: stats.SystemContainerPods, StartTime: sum.Node.StartTime, CPU: &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &nanos},
		Memory: &stats.MemoryStats{Time: now, UsageBytes: &used, WorkingSetBytes: &set, RSSBytes: &resident, PageFaults: &faults, MajorPageFaults: &major},
	}
	if limit > 0 {
		if limit > set {
			free = limit - set
		}
		out.Memory.AvailableBytes = &free
	}
	return out
}

// add adds what is known.
func add(to, n *uint64) {
	if n != nil {
		*to += *n
	}
}

// imageDisk is the file system of images, with what they take of it.
func (s *Server) imageDisk(ctx context.Context) *stats.FsStats {
	info, err := s.cfg.Engine.ImageFsInfo(ctx, &rt.ImageFsInfoRequest{})
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return nil
	}
	u := info.GetImageFilesystems()[0]
	out := disk(u.GetFsId().GetMountpoint())
	if out == nil {
		return nil
	}
	out.Time, out.UsedBytes, out.InodesUsed = at(u.GetTimestamp()), value(u.GetUsedBytes()), value(u.GetInodesUsed())
	return out
}

func (s *Server) nodeDisk() *stats.FsStats {
	if s.cfg.Disks.Node == "" {
		return nil
	}
	return disk(s.cfg.Disks.Node)
}

// disk is the file system of a path, nil when it can't be asked.
func disk(path string) *stats.FsStats {
	var st unix.Statfs_t
	if path == "" || unix.Statfs(path, &st) != nil {
		return nil
	}
	size := uint64(st.Bsize) //nolint:gosec // positive
	available, capacity, nodes, free := st.Bavail*size, st.Blocks*size, st.Files, st.Ffree
	return &stats.FsStats{Time: metav1.Now(), AvailableBytes: &available, CapacityBytes: &capacity, Inodes: &nodes, InodesFree: &free}
}

// inUse says what everybody uses of a file system.
func inUse(f *stats.FsStats) {
	bytes, nodes := *f.CapacityBytes-*f.AvailableBytes, *f.Inodes-*f.InodesFree
	f.UsedBytes, f.InodesUsed = &bytes, &nodes
}

// room is a file system with what somebody uses of it.
func room(of *stats.FsStats, used usage.Disk) *stats.FsStats {
	bytes, nodes := uint64(used.Bytes), uint64(used.Inodes) //nolint:gosec // counted
	out := stats.FsStats{Time: metav1.Now()}
	if of != nil {
		out = *of
	}
	out.UsedBytes, out.InodesUsed = &bytes, &nodes
	return &out
}

// nanosPerTick: the kernel tells of CPU time in hundredths of a second.
const nanosPerTick = 10_000_000

// busyTicks sums the first line of /proc/stat without idle and iowait.
func busyTicks() (uint64, bool) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	total := uint64(0)
	// user nice system idle iowait irq softirq steal; guest time is in user.
	for i := 1; i < min(len(f), 9); i++ {
		if i == 4 || i == 5 {
			continue
		}
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			return 0, false
		}
		total += n
	}
	return total, len(f) > 4
}

// booted is when the machine started.
func booted() time.Time {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			if seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				return time.Unix(seconds, 0)
			}
		}
	}
	return time.Time{}
}

// meminfo is /proc/meminfo in bytes, by the names there.
func meminfo() map[string]uint64 {
	out := map[string]uint64{}
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 {
			if kib, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				out[f[0]] = kib << 10
			}
		}
	}
	return out
}

// faults adds the machine's page faults.
func faults(m *stats.MemoryStats) {
	data, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "pgfault" && name != "pgmajfault" {
			continue
		}
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			if name == "pgfault" {
				m.PageFaults = &n
			} else {
				m.MajorPageFaults = &n
			}
		}
	}
}

// nodePressure is /proc/pressure/<what>, nil where the kernel doesn't tell.
func nodePressure(what string) *stats.PSIStats {
	data, err := os.ReadFile("/proc/pressure/" + what)
	if err != nil {
		return nil
	}
	out := &stats.PSIStats{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			continue
		}
		into := &out.Some
		if f[0] == "full" {
			into = &out.Full
		}
		for _, part := range f[1:] {
			name, text, _ := strings.Cut(part, "=")
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				continue
			}
			switch name {
			case "avg10":
				into.Avg10 = n
			case "avg60":
				into.Avg60 = n
			case "avg300":
				into.Avg300 = n
			case "total":
				into.Total = uint64(n)
			}
		}
	}
	return out
}

// nodeNetwork is what went over the machine's interfaces; the default one is that
// of the default route.
func nodeNetwork(now metav1.Time) *stats.NetworkStats {
	data, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return nil
	}
	out, usual := &stats.NetworkStats{Time: now}, defaultInterface()
	for line := range strings.Lines(string(data)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 11 || name == "lo" {
			continue
		}
		var n [4]uint64
		for i, field := range []int{0, 2, 8, 10} {
			n[i], _ = strconv.ParseUint(f[field], 10, 64)
		}
		one := stats.InterfaceStats{Name: name, RxBytes: &n[0], RxErrors: &n[1], TxBytes: &n[2], TxErrors: &n[3]}
		if name == usual {
			out.InterfaceStats = one
		}
		out.Interfaces = append(out.Interfaces, one)
	}
	return out
}

func defaultInterface() string {
	data, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return f[0]
		}
	}
	return ""
}

func fields(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}
