package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// containerLabels are those that every metric has, in the order of their values.
var containerLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// measure is one metric of a container, or of a pod's cgroup: its name as cAdvisor has
// it, and where its values are. There are none when nobody told.
type measure struct {
	name, help string
	kind       rt.MetricType
	// extra are the labels that it has beside those of all.
	extra []string
	of    func(*subject) []reading
}

// reading is one value, with those of the measure's own labels.
type reading struct {
	value  float64
	labels []string
}

// subject is what is measured.
type subject struct {
	// stats is nil of a pod's cgroup.
	stats  *rt.ContainerStats
	used   *container.Usage
	limits *rt.LinuxContainerResources
	// processes are looked at once, and only of a container.
	processes *processes
	begun     time.Time
	now       time.Time
	root      string
}

// nanos and micros are a second in the kernel's units.
const (
	nanos  = 1e9
	micros = 1e6
)

func just(value float64) []reading { return []reading{{value: value}} }

// counted is a counter of the kernel's, in units of so many for one.
func counted(name, help string, unit float64, of func(*container.Usage) uint64) measure {
	return measure{name: name, help: help, kind: rt.MetricType_COUNTER, of: func(s *subject) []reading { return just(float64(of(s.used)) / unit) }}
}

// gauged is a number of the kernel's that goes up and down.
func gauged(name, help string, of func(*container.Usage) uint64) measure {
	m := counted(name, help, 1, of)
	m.kind = rt.MetricType_GAUGE
	return m
}

// limited is what a container may use; one without the limit has 0.
func limited(name, help string, of func(*rt.LinuxContainerResources) int64) measure {
	return measure{name: name, help: help, kind: rt.MetricType_GAUGE, of: func(s *subject) []reading {
		if s.stats == nil {
			return nil
		}
		return just(float64(max(0, of(s.limits))))
	}}
}

// inPages is a limit as the kernel keeps it: in whole pages.
func inPages(of func(*rt.LinuxContainerResources) int64) func(*rt.LinuxContainerResources) int64 {
	page := int64(os.Getpagesize())
	return func(r *rt.LinuxContainerResources) int64 { return of(r) / page * page }
}

// waited is how long a group's processes waited, in seconds.
func waited(name, help string, of func(*container.Usage) *container.Pressure, all bool) measure {
	return measure{name: name, help: help, kind: rt.MetricType_COUNTER, of: func(s *subject) []reading {
		p := of(s.used)
		switch {
		case p == nil:
			return nil
		case all:
			return just(float64(p.Full.Total) / micros)
		}
		return just(float64(p.Some.Total) / micros)
	}}
}

// containerMeasures are the metrics of one container, and of a pod's cgroup.
func containerMeasures() []measure {
	return slices.Concat(processorMeasures(), memoryMeasures(), diskMeasures(), processMeasures(), pressureMeasures(), []measure{
		{name: "container_start_time_seconds", help: "When the container began, in seconds since 1970.", kind: rt.MetricType_GAUGE, of: func(s *subject) []reading {
			if s.begun.IsZero() {
				return nil
			}
			return just(float64(s.begun.Unix()))
		}},
		{name: "container_last_seen", help: "When the container was measured, in seconds since 1970.", kind: rt.MetricType_GAUGE,
			of: func(s *subject) []reading { return just(float64(s.now.Unix())) }},
		counted("container_oom_events_total", "Processes that the kernel killed for want of memory.", 1, func(u *container.Usage) uint64 { return u.Killed }),
	})
}

func processorMeasures() []measure {
	cpu := counted("container_cpu_usage_seconds_total", "Processor time used, in seconds.", nanos, func(u *container.Usage) uint64 { return u.CPU })
	plain := cpu.of
	cpu.extra, cpu.of = []string{"cpu"}, func(s *subject) []reading { return []reading{{plain(s)[0].value, []string{"total"}}} }
	return []measure{
		cpu,
		counted("container_cpu_user_seconds_total", "Processor time of programs, in seconds.", nanos, func(u *container.Usage) uint64 { return u.CPUUser }),
		counted("container_cpu_system_seconds_total", "Processor time of the kernel, in seconds.", nanos, func(u *container.Usage) uint64 { return u.CPUSystem }),
		counted("container_cpu_cfs_periods_total", "Periods in which the limit of processors was looked at.", 1, func(u *container.Usage) uint64 { return u.Periods }),
		counted("container_cpu_cfs_throttled_periods_total", "Periods in which the limit of processors was hit.", 1, func(u *container.Usage) uint64 { return u.ThrottledPeriods }),
		counted("container_cpu_cfs_throttled_seconds_total", "Time of waiting for the limit of processors, in seconds.", nanos, func(u *container.Usage) uint64 { return u.ThrottledTime }),
		limited("container_spec_cpu_period", "Period of the limit of processors, in microseconds.", (*rt.LinuxContainerResources).GetCpuPeriod),
		limited("container_spec_cpu_quota", "Limit of processors in a period, in microseconds.", (*rt.LinuxContainerResources).GetCpuQuota),
		limited("container_spec_cpu_shares", "Share of processors.", (*rt.LinuxContainerResources).GetCpuShares),
	}
}

func memoryMeasures() []measure {
	return []measure{
		gauged("container_memory_usage_bytes", "Memory charged, in bytes, with file pages.", func(u *container.Usage) uint64 { return u.Memory }),
		gauged("container_memory_working_set_bytes", "Memory that could not go at once, in bytes.", func(u *container.Usage) uint64 { return u.WorkingSet }),
		gauged("container_memory_rss", "Anonymous memory, in bytes.", func(u *container.Usage) uint64 { return u.RSS }),
		gauged("container_memory_cache", "File pages, in bytes.", func(u *container.Usage) uint64 { return u.Cache }),
		gauged("container_memory_total_active_file_bytes", "File pages in use, in bytes.", func(u *container.Usage) uint64 { return u.Active }),
		gauged("container_memory_total_inactive_file_bytes", "File pages that could go at once, in bytes.", func(u *container.Usage) uint64 { return u.Inactive }),
		gauged("container_memory_kernel_usage", "Memory that the kernel keeps for it, in bytes.", func(u *container.Usage) uint64 { return u.Kernel }),
		gauged("container_memory_mapped_file", "File pages that are mapped, in bytes.", func(u *container.Usage) uint64 { return u.Mapped }),
		gauged("container_memory_swap", "Swap used, in bytes.", func(u *container.Usage) uint64 { return u.Swap }),
		gauged("container_memory_max_usage_bytes", "The most memory that was charged, in bytes.", func(u *container.Usage) uint64 { return u.MaxMemory }),
		counted("container_memory_events_high_total", "How often it was held back for having passed its high mark.", 1, func(u *container.Usage) uint64 { return u.PastHigh }),
		counted("container_memory_events_max_total", "How often it was about to pass its limit of memory.", 1, func(u *container.Usage) uint64 { return u.PastLimit }),
		counted("container_memory_failcnt", "How often the limit of memory was hit.", 1, func(u *container.Usage) uint64 { return u.Refused }),
		{name: "container_memory_failures_total", help: "Pages that had to be found, by how.", kind: rt.MetricType_COUNTER, extra: []string{"failure_type", "scope"},
			of: func(s *subject) []reading {
				var list []reading
				for _, scope := range []string{"container", "hierarchy"} { // there is nothing below a container
					list = append(list, reading{float64(s.used.PageFaults), []string{"pgfault", scope}}, reading{float64(s.used.MajorFaults), []string{"pgmajfault", scope}})
				}
				return list
			}},
		limited("container_spec_memory_limit_bytes", "Limit of memory, in bytes; 0 is none.", inPages((*rt.LinuxContainerResources).GetMemoryLimitInBytes)),
		limited("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, in bytes; 0 is none.", inPages((*rt.LinuxContainerResources).GetMemorySwapLimitInBytes)),
		limited("container_spec_memory_reservation_limit_bytes", "Memory that is left to it when there is little, in bytes; 0 is none.", func(*rt.LinuxContainerResources) int64 { return 0 }),
	}
}

func pressureMeasures() []measure {
	cpu := func(u *container.Usage) *container.Pressure { return u.CPUPressure }
	memory := func(u *container.Usage) *container.Pressure { return u.MemoryPressure }
	disk := func(u *container.Usage) *container.Pressure { return u.IOPressure }
	return []measure{
		waited("container_pressure_cpu_waiting_seconds_total", "Time in which some of it waited for processors, in seconds.", cpu, false),
		waited("container_pressure_cpu_stalled_seconds_total", "Time in which all of it waited for processors, in seconds.", cpu, true),
		waited("container_pressure_memory_waiting_seconds_total", "Time in which some of it waited for memory, in seconds.", memory, false),
		waited("container_pressure_memory_stalled_seconds_total", "Time in which all of it waited for memory, in seconds.", memory, true),
		waited("container_pressure_io_waiting_seconds_total", "Time in which some of it waited for disks, in seconds.", disk, false),
		waited("container_pressure_io_stalled_seconds_total", "Time in which all of it waited for disks, in seconds.", disk, true),
	}
}

// diskMeasures are those of the file system of writable layers, and of each disk.
func diskMeasures() []measure {
	system := func(name, help string, of func(*subject, *unix.Statfs_t) float64) measure {
		return measure{name: name, help: help, kind: rt.MetricType_GAUGE, extra: []string{"device"}, of: func(s *subject) []reading {
			var fs unix.Statfs_t
			var at unix.Stat_t
			if s.stats == nil || unix.Statfs(s.root, &fs) != nil || unix.Stat(s.root, &at) != nil {
				return nil
			}
			return []reading{{of(s, &fs), []string{diskName(uint64(unix.Major(at.Dev)), uint64(unix.Minor(at.Dev)))}}}
		}}
	}
	each := func(name, help string, of func(container.Device) uint64) measure {
		return measure{name: name, help: help, kind: rt.MetricType_COUNTER, extra: []string{"device"}, of: func(s *subject) []reading {
			var list []reading
			for _, d := range s.used.Devices {
				list = append(list, reading{float64(of(d)), []string{diskName(d.Major, d.Minor)}})
			}
			return list
		}}
	}
	return []measure{
		system("container_fs_usage_bytes", "Bytes of the writable layer.", func(s *subject, _ *unix.Statfs_t) float64 {
			return float64(s.stats.GetWritableLayer().GetUsedBytes().GetValue())
		}),
		system("container_fs_limit_bytes", "Size of the writable layer's file system, in bytes.", func(_ *subject, fs *unix.Statfs_t) float64 {
			return float64(fs.Blocks) * float64(fs.Bsize)
		}),
		// Of a container cAdvisor tells the inodes that it has, and none that are free, where
		// it tells of them at all: those of the file system are not the container's.
		system("container_fs_inodes_total", "Inodes of the writable layer.", func(s *subject, _ *unix.Statfs_t) float64 {
			return float64(s.stats.GetWritableLayer().GetInodesUsed().GetValue())
		}),
		system("container_fs_inodes_free", "Free inodes of the writable layer, which has none of its own.", func(*subject, *unix.Statfs_t) float64 { return 0 }),
		each("container_fs_reads_bytes_total", "Bytes read from disks.", func(d container.Device) uint64 { return d.ReadBytes }),
		each("container_fs_reads_total", "Reads from disks.", func(d container.Device) uint64 { return d.Reads }),
		each("container_fs_writes_bytes_total", "Bytes written to disks.", func(d container.Device) uint64 { return d.WrittenB }),
		each("container_fs_writes_total", "Writes to disks.", func(d container.Device) uint64 { return d.Writes }),
		{name: "container_blkio_device_usage_total", help: "Bytes read from and written to disks.", kind: rt.MetricType_COUNTER,
			extra: []string{"device", "major", "minor", "operation"}, of: func(s *subject) []reading {
				var list []reading
				for _, d := range s.used.Devices {
					at := []string{diskName(d.Major, d.Minor), strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)}
					list = append(list, reading{float64(d.ReadBytes), append(slices.Clone(at), "Read")}, reading{float64(d.WrittenB), append(slices.Clone(at), "Write")})
				}
				return list
			}},
	}
}

// diskName is the device node of a disk, "" when the kernel has no name for it.
func diskName(major, minor uint64) string {
	link, err := os.Readlink(filepath.Join("/sys/dev/block", strconv.FormatUint(major, 10)+":"+strconv.FormatUint(minor, 10)))
	if err != nil {
		return ""
	}
	return "/dev/" + filepath.Base(link)
}

// processMeasures are those of its processes.
func processMeasures() []measure {
	of := func(name, help string, value func(*processes) float64) measure {
		return measure{name: name, help: help, kind: rt.MetricType_GAUGE, of: func(s *subject) []reading {
			if s.processes == nil {
				return nil
			}
			return just(value(s.processes))
		}}
	}
	return []measure{
		gauged("container_threads", "Threads of all processes.", func(u *container.Usage) uint64 { return u.Pids }),
		gauged("container_threads_max", "Threads that there may be; 0 is no limit.", func(u *container.Usage) uint64 { return u.PidsLimit }),
		of("container_processes", "Processes.", func(p *processes) float64 { return float64(p.count) }),
		of("container_file_descriptors", "Open files of all processes.", func(p *processes) float64 { return float64(p.files) }),
		of("container_sockets", "Open sockets of all processes.", func(p *processes) float64 { return float64(p.sockets) }),
		{name: "container_ulimits_soft", help: "Soft limits of the first process; -1 is none.", kind: rt.MetricType_GAUGE, extra: []string{"ulimit"}, of: func(s *subject) []reading {
			if s.processes == nil || s.processes.count == 0 {
				return nil
			}
			return []reading{{s.processes.openFiles, []string{"max_open_files"}}}
		}},
	}
}

// processes are those of a container, with what they have open.
type processes struct {
	count, files, sockets int
	// openFiles is how many files the first of them may open, -1 for any number.
	openFiles float64
}

// maxProcesses bounds how many processes of a container are looked into: what they have
// open is a link each.
const maxProcesses = 512

func look(pids []int) *processes {
	p := &processes{count: len(pids), openFiles: -1}
	for i, pid := range pids[:min(len(pids), maxProcesses)] {
		if i == 0 {
			var limit unix.Rlimit
			if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit) == nil && limit.Cur != unix.RLIM_INFINITY {
				p.openFiles = float64(limit.Cur)
			}
		}
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		p.files += len(entries)
		for _, e := range entries {
			if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
				p.sockets++
			}
		}
	}
	return p
}
