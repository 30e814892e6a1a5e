package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// Usage is what a group has used. Memory is in bytes, CPU in nanoseconds.
type Usage struct {
	CPU uint64
	// Memory is everything charged; WorkingSet leaves out the file pages that
	// could go at once; RSS is anonymous memory.
	Memory, WorkingSet, RSS uint64
	// Limit is the memory limit, 0 when there is none.
	Limit               uint64
	PageFaults          uint64
	MajorFaults         uint64
	Swap                uint64
	Pids, PidsLimit     uint64
	ThrottledPeriods    uint64
	ThrottledTime       uint64
	ReadBytes, WrittenB uint64
	// CPUUser and CPUSystem are the two parts of CPU, Periods how often the limit of
	// processors was looked at.
	CPUUser, CPUSystem, Periods uint64
	// Cache is file pages, Mapped those of them that are mapped, MaxMemory the most
	// that was charged, and Refused how often the limit was hit.
	Cache, Mapped, MaxMemory, Refused uint64
	// Reads and Writes count what ReadBytes and WrittenB measure.
	Reads, Writes uint64
	// Active and Inactive are file pages in use and others, Kernel what the kernel
	// keeps for the group.
	Active, Inactive, Kernel uint64
	// SwapLimit is what it may swap out, nil for no limit.
	SwapLimit *uint64
	// Killed is how many of its processes the kernel has killed for want of memory.
	Killed uint64
	// PastHigh and PastLimit are how often it was held back since it had more than its high
	// mark, and how often it was about to pass its limit: with cgroup v1, which does not
	// count so, 0.
	PastHigh, PastLimit uint64
	// Devices are the reads and writes of each disk.
	Devices []Device
	// CPUPressure, MemoryPressure and IOPressure are how long its processes had to wait,
	// nil where the kernel doesn't tell: with cgroup v1 never.
	CPUPressure, MemoryPressure, IOPressure *Pressure
}

// Device is what went to one disk and came from it.
type Device struct {
	Major, Minor                       uint64
	ReadBytes, WrittenB, Reads, Writes uint64
}

// Pressure is how long some processes, and all of them, waited for something: in
// hundredths of the last seconds, and in microseconds of all time.
type Pressure struct{ Some, Full Waited }

// Waited is one line of Pressure.
type Waited struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// Usage reads the counters.
func (g *Group) Usage() (Usage, error) {
	st, err := g.m.GetStats()
	if err != nil {
		return Usage{}, fmt.Errorf("usage of cgroup %q: %w", g.path, err)
	}
	m := st.MemoryStats
	u := Usage{
		CPU:    st.CpuStats.CpuUsage.TotalUsage,
		Memory: m.Usage.Usage, Swap: m.SwapOnlyUsage.Usage, Limit: m.Usage.Limit,
		PageFaults: m.Stats["pgfault"], MajorFaults: m.Stats["pgmajfault"],
		Pids: st.PidsStats.Current, PidsLimit: st.PidsStats.Limit,
		ThrottledPeriods: st.CpuStats.ThrottlingData.ThrottledPeriods,
		ThrottledTime:    st.CpuStats.ThrottlingData.ThrottledTime,
		CPUUser:          st.CpuStats.CpuUsage.UsageInUsermode, CPUSystem: st.CpuStats.CpuUsage.UsageInKernelmode,
		Periods: st.CpuStats.ThrottlingData.Periods, MaxMemory: m.Usage.MaxUsage, Refused: m.Usage.Failcnt,
	}
	inactive := m.Stats["total_inactive_file"]
	if n, is := m.Stats["total_pgfault"]; is { // v1: those of the groups below it too
		u.PageFaults, u.MajorFaults = n, m.Stats["total_pgmajfault"]
	}
	u.RSS, u.Cache, u.Mapped = m.Stats["total_rss"], m.Stats["total_cache"], m.Stats["total_mapped_file"]
	if cgroups.IsCgroup2UnifiedMode() {
		inactive, u.RSS = m.Stats["inactive_file"], m.Stats["anon"]
		u.Cache, u.Mapped = m.Stats["file"], m.Stats["file_mapped"]
	}
	u.WorkingSet = u.Memory - min(inactive, u.Memory)
	if u.Limit >= 1<<62 {
		u.Limit = 0 // the kernel's way to say "none"
	}
	u.Inactive, u.Active, u.Kernel = inactive, m.Stats["total_active_file"], m.KernelUsage.Usage
	if cgroups.IsCgroup2UnifiedMode() {
		u.Active, u.Kernel = m.Stats["active_file"], m.Stats["kernel"]
	}
	u.SwapLimit = swapLimit(m)
	u.Killed, u.PastHigh, u.PastLimit = g.mishaps()
	u.CPUPressure, u.MemoryPressure, u.IOPressure = pressure(st.CpuStats.PSI), pressure(st.MemoryStats.PSI), pressure(st.BlkioStats.PSI)
	u.disks(st.BlkioStats)
	return u, nil
}

// swapLimit is what a group may swap out, nil for no limit. With v1 the limit is of
// memory and swap together, and there is none where the kernel doesn't count swap.
func swapLimit(m cgroups.MemoryStats) *uint64 {
	limit := m.SwapOnlyUsage.Limit
	if !cgroups.IsCgroup2UnifiedMode() {
		both := m.SwapUsage.Limit
		if both == 0 || both >= 1<<62 || both < m.Usage.Limit {
			return nil
		}
		limit = both - m.Usage.Limit
	}
	if limit >= 1<<62 {
		return nil
	}
	return &limit
}

// disks sorts reads and writes by disk, and sums them up.
func (u *Usage) disks(st cgroups.BlkioStats) {
	of := func(e cgroups.BlkioStatEntry) *Device {
		for i := range u.Devices {
			if u.Devices[i].Major == e.Major && u.Devices[i].Minor == e.Minor {
				return &u.Devices[i]
			}
		}
		u.Devices = append(u.Devices, Device{Major: e.Major, Minor: e.Minor})
		return &u.Devices[len(u.Devices)-1]
	}
	for _, e := range st.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			of(e).ReadBytes += e.Value
			u.ReadBytes += e.Value
		case "write":
			of(e).WrittenB += e.Value
			u.WrittenB += e.Value
		}
	}
	for _, e := range st.IoServicedRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			of(e).Reads += e.Value
			u.Reads += e.Value
		case "write":
			of(e).Writes += e.Value
			u.Writes += e.Value
		}
	}
}

// mishaps is what the memory controller says of processes it had killed, and with v2 how
// often a group was held back since it had passed its high mark, or hit its limit.
func (g *Group) mishaps() (killed, high, limit uint64) {
	path := filepath.Join(g.m.Path("memory"), "memory.oom_control")
	if cgroups.IsCgroup2UnifiedMode() {
		path = filepath.Join(g.m.Path(""), "memory.events")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, 0 // the group ends, or has no such controller
	}
	return mishapsIn(string(data))
}

func mishapsIn(text string) (killed, high, limit uint64) {
	into := map[string]*uint64{"oom_kill": &killed, "high": &high, "max": &limit}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to := into[name]; to != nil {
			*to, _ = strconv.ParseUint(value, 10, 64) // the kernel's own
		}
	}
	return killed, high, limit
}

func pressure(p *cgroups.PSIStats) *Pressure {
	if p == nil {
		return nil
	}
	waited := func(d cgroups.PSIData) Waited { return Waited{d.Avg10, d.Avg60, d.Avg300, d.Total} }
	return &Pressure{Some: waited(p.Some), Full: waited(p.Full)}
}
