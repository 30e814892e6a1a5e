package engine

import (
	"context"
	"slices"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels of metrics, in the order of their values.
var (
	containerLabels = []string{"container", "id", "image", "name", "namespace", "pod"}
	networkLabels   = append(containerLabels[:len(containerLabels):len(containerLabels)], "interface")
)

// measure is one metric of a container: its name as cAdvisor has it, and where its
// value is in the stats. The value is absent when the kernel did not tell.
type measure struct {
	name, help string
	kind       rt.MetricType
	of         func(*rt.ContainerStats) *rt.UInt64Value
}

// perSecond is nanoseconds: cAdvisor counts processor time in seconds, and a metric
// is a whole number.
const perSecond = 1_000_000_000

// containerMeasures are the metrics of one container.
func containerMeasures() []measure {
	return []measure{
		{"container_cpu_usage_seconds_total", "Processor time used, in seconds.", rt.MetricType_COUNTER, func(s *rt.ContainerStats) *rt.UInt64Value {
			if s.GetCpu() == nil {
				return nil
			}
			return value(s.GetCpu().GetUsageCoreNanoSeconds().GetValue() / perSecond)
		}},
		{"container_memory_usage_bytes", "Memory charged, in bytes, with file pages.", rt.MetricType_GAUGE,
			func(s *rt.ContainerStats) *rt.UInt64Value { return s.GetMemory().GetUsageBytes() }},
		{"container_memory_working_set_bytes", "Memory that could not go at once, in bytes.", rt.MetricType_GAUGE,
			func(s *rt.ContainerStats) *rt.UInt64Value { return s.GetMemory().GetWorkingSetBytes() }},
		{"container_memory_rss", "Anonymous memory, in bytes.", rt.MetricType_GAUGE,
			func(s *rt.ContainerStats) *rt.UInt64Value { return s.GetMemory().GetRssBytes() }},
		{"container_memory_swap", "Swap used, in bytes.", rt.MetricType_GAUGE,
			func(s *rt.ContainerStats) *rt.UInt64Value { return s.GetSwap().GetSwapUsageBytes() }},
		{"container_fs_usage_bytes", "Bytes of the writable layer.", rt.MetricType_GAUGE,
			func(s *rt.ContainerStats) *rt.UInt64Value { return s.GetWritableLayer().GetUsedBytes() }},
	}
}

// podMeasure is one metric of a sandbox's network interface, or of all its processes.
type podMeasure struct {
	name, help string
	kind       rt.MetricType
	network    bool
	of         func(*rt.LinuxPodSandboxStats) *rt.UInt64Value
}

func podMeasures() []podMeasure {
	return []podMeasure{
		{"container_processes", "Processes of all containers.", rt.MetricType_GAUGE, false,
			func(s *rt.LinuxPodSandboxStats) *rt.UInt64Value { return s.GetProcess().GetProcessCount() }},
		{"container_network_receive_bytes_total", "Bytes received.", rt.MetricType_COUNTER, true,
			func(s *rt.LinuxPodSandboxStats) *rt.UInt64Value {
				return s.GetNetwork().GetDefaultInterface().GetRxBytes()
			}},
		{"container_network_receive_errors_total", "Errors while receiving.", rt.MetricType_COUNTER, true,
			func(s *rt.LinuxPodSandboxStats) *rt.UInt64Value {
				return s.GetNetwork().GetDefaultInterface().GetRxErrors()
			}},
		{"container_network_transmit_bytes_total", "Bytes sent.", rt.MetricType_COUNTER, true,
			func(s *rt.LinuxPodSandboxStats) *rt.UInt64Value {
				return s.GetNetwork().GetDefaultInterface().GetTxBytes()
			}},
		{"container_network_transmit_errors_total", "Errors while sending.", rt.MetricType_COUNTER, true,
			func(s *rt.LinuxPodSandboxStats) *rt.UInt64Value {
				return s.GetNetwork().GetDefaultInterface().GetTxErrors()
			}},
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
		st, err := e.sandboxStats(s)
		if err != nil {
			return nil, coded(err)
		}
		out.PodMetrics = append(out.PodMetrics, e.podMetrics(s, st.GetLinux()))
	}
	return out, nil
}

func (e *Engine) podMetrics(s *sandbox, st *rt.LinuxPodSandboxStats) *rt.PodSandboxMetrics {
	meta := s.Config.GetMetadata()
	pod := &rt.PodSandboxMetrics{PodSandboxId: s.ID}
	labels := []string{"POD", s.ID, "", s.ID, meta.GetNamespace(), meta.GetName()}
	for _, m := range podMeasures() {
		values := labels
		if m.network {
			values = append(slices.Clone(labels), st.GetNetwork().GetDefaultInterface().GetName())
		}
		if v := m.of(st); v != nil {
			pod.Metrics = append(pod.Metrics, &rt.Metric{Name: m.name, MetricType: m.kind, LabelValues: values, Value: v})
		}
	}
	for _, c := range st.GetContainers() {
		id := c.GetAttributes().GetId()
		image := ""
		if known := e.records.container(id); known != nil {
			image = known.Config.GetImage().GetImage()
		}
		one := &rt.ContainerMetrics{ContainerId: id}
		values := []string{c.GetAttributes().GetMetadata().GetName(), id, image, id, meta.GetNamespace(), meta.GetName()}
		for _, m := range containerMeasures() {
			if v := m.of(c); v != nil {
				one.Metrics = append(one.Metrics, &rt.Metric{Name: m.name, MetricType: m.kind, LabelValues: values, Value: v})
			}
		}
		pod.ContainerMetrics = append(pod.ContainerMetrics, one)
	}
	return pod
}
