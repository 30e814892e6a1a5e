package engine

import (
	"context"
	"slices"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/network"
)

// Labels of metrics, in the order of their values.
var (
	containerLabels = []string{"container", "id", "image", "name", "namespace", "pod"}
	networkLabels   = append(containerLabels[:len(containerLabels):len(containerLabels)], "interface")
)

// measure is one metric of a container: its name as cAdvisor has it, and where its
// value is. The value is absent when nobody told.
type measure struct {
	name, help string
	kind       rt.MetricType
	of         func(*subject) *rt.UInt64Value
}

// subject is a container that is measured.
type subject struct {
	stats  *rt.ContainerStats
	used   *container.Usage
	limits *rt.LinuxContainerResources
	begun  time.Time
	now    time.Time
}

// perSecond is nanoseconds: cAdvisor counts processor time in seconds, and a metric
// is a whole number.
const perSecond = 1_000_000_000

// counted is a counter of the kernel's.
func counted(name, help string, of func(*container.Usage) uint64) measure {
	return measure{name, help, rt.MetricType_COUNTER, func(s *subject) *rt.UInt64Value { return value(of(s.used)) }}
}

// gauged is a number of the kernel's that goes up and down.
func gauged(name, help string, of func(*container.Usage) uint64) measure {
	m := counted(name, help, of)
	m.kind = rt.MetricType_GAUGE
	return m
}

// limited is what a container may use; one without the limit has 0.
func limited(name, help string, of func(*rt.LinuxContainerResources) int64) measure {
	return measure{name, help, rt.MetricType_GAUGE, func(s *subject) *rt.UInt64Value { return value(uint64(max(0, of(s.limits)))) }}
}

// containerMeasures are the metrics of one container.
func containerMeasures() []measure {
	return slices.Concat(processorMeasures(), memoryMeasures(), []measure{
		{"container_fs_usage_bytes", "Bytes of the writable layer.", rt.MetricType_GAUGE,
			func(s *subject) *rt.UInt64Value { return s.stats.GetWritableLayer().GetUsedBytes() }},
		counted("container_fs_reads_bytes_total", "Bytes read from disks.", func(u *container.Usage) uint64 { return u.ReadBytes }),
		counted("container_fs_reads_total", "Reads from disks.", func(u *container.Usage) uint64 { return u.Reads }),
		counted("container_fs_writes_bytes_total", "Bytes written to disks.", func(u *container.Usage) uint64 { return u.WrittenB }),
		counted("container_fs_writes_total", "Writes to disks.", func(u *container.Usage) uint64 { return u.Writes }),
		gauged("container_threads", "Threads of all processes.", func(u *container.Usage) uint64 { return u.Pids }),
		gauged("container_threads_max", "Threads that there may be; 0 is no limit.", func(u *container.Usage) uint64 { return u.PidsLimit }),
		{"container_start_time_seconds", "When the container began, in seconds since 1970.", rt.MetricType_GAUGE, func(s *subject) *rt.UInt64Value {
			if s.begun.IsZero() {
				return nil
			}
			return value(uint64(s.begun.Unix()))
		}},
		{"container_last_seen", "When the container was measured, in seconds since 1970.", rt.MetricType_GAUGE,
			func(s *subject) *rt.UInt64Value { return value(uint64(s.now.Unix())) }},
	})
}

func processorMeasures() []measure {
	return []measure{
		counted("container_cpu_usage_seconds_total", "Processor time used, in seconds.", func(u *container.Usage) uint64 { return u.CPU / perSecond }),
		counted("container_cpu_user_seconds_total", "Processor time of programs, in seconds.", func(u *container.Usage) uint64 { return u.CPUUser / perSecond }),
		counted("container_cpu_system_seconds_total", "Processor time of the kernel, in seconds.", func(u *container.Usage) uint64 { return u.CPUSystem / perSecond }),
		counted("container_cpu_cfs_periods_total", "Periods in which the limit of processors was looked at.", func(u *container.Usage) uint64 { return u.Periods }),
		counted("container_cpu_cfs_throttled_periods_total", "Periods in which the limit of processors was hit.", func(u *container.Usage) uint64 { return u.ThrottledPeriods }),
		counted("container_cpu_cfs_throttled_seconds_total", "Time of waiting for the limit of processors, in seconds.", func(u *container.Usage) uint64 { return u.ThrottledTime / perSecond }),
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
		gauged("container_memory_mapped_file", "File pages that are mapped, in bytes.", func(u *container.Usage) uint64 { return u.Mapped }),
		gauged("container_memory_swap", "Swap used, in bytes.", func(u *container.Usage) uint64 { return u.Swap }),
		gauged("container_memory_max_usage_bytes", "The most memory that was charged, in bytes.", func(u *container.Usage) uint64 { return u.MaxMemory }),
		counted("container_memory_failcnt", "How often the limit of memory was hit.", func(u *container.Usage) uint64 { return u.Refused }),
		limited("container_spec_memory_limit_bytes", "Limit of memory, in bytes; 0 is none.", (*rt.LinuxContainerResources).GetMemoryLimitInBytes),
		limited("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, in bytes; 0 is none.", (*rt.LinuxContainerResources).GetMemorySwapLimitInBytes),
	}
}

// podMeasure is one metric of all processes of a sandbox, or of its network
// interface.
type podMeasure struct {
	name, help string
	kind       rt.MetricType
	network    bool
	of         func(*rt.LinuxPodSandboxStats, network.Usage) *rt.UInt64Value
}

func podMeasures() []podMeasure {
	over := func(name, help string, of func(network.Usage) uint64) podMeasure {
		return podMeasure{name, help, rt.MetricType_COUNTER, true, func(_ *rt.LinuxPodSandboxStats, u network.Usage) *rt.UInt64Value { return value(of(u)) }}
	}
	return []podMeasure{
		{"container_processes", "Processes of all containers.", rt.MetricType_GAUGE, false,
			func(s *rt.LinuxPodSandboxStats, _ network.Usage) *rt.UInt64Value {
				return s.GetProcess().GetProcessCount()
			}},
		over("container_network_receive_bytes_total", "Bytes received.", func(u network.Usage) uint64 { return u.RxBytes }),
		over("container_network_receive_packets_total", "Packets received.", func(u network.Usage) uint64 { return u.RxPackets }),
		over("container_network_receive_packets_dropped_total", "Packets thrown away while receiving.", func(u network.Usage) uint64 { return u.RxDropped }),
		over("container_network_receive_errors_total", "Errors while receiving.", func(u network.Usage) uint64 { return u.RxErrors }),
		over("container_network_transmit_bytes_total", "Bytes sent.", func(u network.Usage) uint64 { return u.TxBytes }),
		over("container_network_transmit_packets_total", "Packets sent.", func(u network.Usage) uint64 { return u.TxPackets }),
		over("container_network_transmit_packets_dropped_total", "Packets thrown away while sending.", func(u network.Usage) uint64 { return u.TxDropped }),
		over("container_network_transmit_errors_total", "Errors while sending.", func(u network.Usage) uint64 { return u.TxErrors }),
	}
}

// ListMetricDescriptors names what ListPodSandboxMetrics measures.
func (e *Engine) ListMetricDescriptors(context.Context, *rt.ListMetricDescriptorsRequest) (*rt.ListMetricDescriptorsResponse, error) {
	out := &rt.ListMetricDescriptorsResponse{}
	for _, m := range containerMeasures() {
		out.Descriptors = append(out.Descriptors, &rt.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: containerLabels})
	}
	for _, m := range podMeasures() {
		keys := containerLabels
		if m.network {
			keys = networkLabels
		}
		out.Descriptors = append(out.Descriptors, &rt.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: keys})
	}
	return out, nil
}

// ListPodSandboxMetrics measures the ready sandboxes and their running containers.
func (e *Engine) ListPodSandboxMetrics(context.Context, *rt.ListPodSandboxMetricsRequest) (*rt.ListPodSandboxMetricsResponse, error) {
	out := &rt.ListPodSandboxMetricsResponse{}
	for _, s := range e.records.allSandboxes() {
		if !s.Ready {
			continue
		}
		st, used, err := e.sandboxStats(s)
		if err != nil {
			return nil, coded(err)
		}
		pod := e.podMetrics(s, st.GetLinux())
		for _, c := range st.GetLinux().GetContainers() {
			pod.ContainerMetrics = append(pod.ContainerMetrics, e.containerMetrics(s, c, used[c.GetAttributes().GetId()]))
		}
		out.PodMetrics = append(out.PodMetrics, pod)
	}
	return out, nil
}

// podMetrics are those that a pod has as a whole. A pod of the host's network, or of
// a plugin's, has none of an interface.
func (e *Engine) podMetrics(s *sandbox, st *rt.LinuxPodSandboxStats) *rt.PodSandboxMetrics {
	meta := s.Config.GetMetadata()
	pod := &rt.PodSandboxMetrics{PodSandboxId: s.ID}
	labels := []string{"POD", s.ID, "", s.ID, meta.GetNamespace(), meta.GetName()}
	passed, connected := e.network.Usage(s.ID)
	for _, m := range podMeasures() {
		values := labels
		if m.network {
			if !connected {
				continue
			}
			values = append(slices.Clone(labels), passed.Interface)
		}
		if v := m.of(st, passed); v != nil {
			pod.Metrics = append(pod.Metrics, &rt.Metric{Name: m.name, MetricType: m.kind, LabelValues: values, Value: v})
		}
	}
	return pod
}

func (e *Engine) containerMetrics(s *sandbox, c *rt.ContainerStats, used *container.Usage) *rt.ContainerMetrics {
	meta, id := s.Config.GetMetadata(), c.GetAttributes().GetId()
	about := &subject{stats: c, used: used, now: time.Now()}
	image := ""
	if known := e.records.container(id); known != nil {
		image, about.limits = imageAsked(known).GetImage(), known.Config.GetLinux().GetResources()
	}
	if st, err := e.runtime.Status(id); err == nil {
		about.begun = st.StartedAt
	}
	out := &rt.ContainerMetrics{ContainerId: id}
	values := []string{c.GetAttributes().GetMetadata().GetName(), id, image, id, meta.GetNamespace(), meta.GetName()}
	for _, m := range containerMeasures() {
		if v := m.of(about); v != nil {
			out.Metrics = append(out.Metrics, &rt.Metric{Name: m.name, MetricType: m.kind, LabelValues: values, Value: v})
		}
	}
	return out
}
