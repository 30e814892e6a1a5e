package engine

import (
	"context"
	"slices"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/network"
)

// passage is one metric of a sandbox's network interface.
type passage struct {
	name, help string
	of         func(network.Usage) uint64
}

func passages() []passage {
	return []passage{
		{"container_network_receive_bytes_total", "Bytes received.", func(u network.Usage) uint64 { return u.RxBytes }},
		{"container_network_receive_packets_total", "Packets received.", func(u network.Usage) uint64 { return u.RxPackets }},
		{"container_network_receive_packets_dropped_total", "Packets thrown away while receiving.", func(u network.Usage) uint64 { return u.RxDropped }},
		{"container_network_receive_errors_total", "Errors while receiving.", func(u network.Usage) uint64 { return u.RxErrors }},
		{"container_network_transmit_bytes_total", "Bytes sent.", func(u network.Usage) uint64 { return u.TxBytes }},
		{"container_network_transmit_packets_total", "Packets sent.", func(u network.Usage) uint64 { return u.TxPackets }},
		{"container_network_transmit_packets_dropped_total", "Packets thrown away while sending.", func(u network.Usage) uint64 { return u.TxDropped }},
		{"container_network_transmit_errors_total", "Errors while sending.", func(u network.Usage) uint64 { return u.TxErrors }},
	}
}

// ListMetricDescriptors names what ListPodSandboxMetrics measures.
func (e *Engine) ListMetricDescriptors(context.Context, *rt.ListMetricDescriptorsRequest) (*rt.ListMetricDescriptorsResponse, error) {
	out := &rt.ListMetricDescriptorsResponse{}
	for _, m := range containerMeasures() {
		out.Descriptors = append(out.Descriptors, &rt.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: slices.Concat(containerLabels, m.extra)})
	}
	for _, m := range passages() {
		out.Descriptors = append(out.Descriptors, &rt.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: append(slices.Clone(containerLabels), "interface")})
	}
	return out, nil
}

// ListPodSandboxMetrics measures the ready sandboxes and their running containers, in
// whole numbers: the CRI has no others.
func (e *Engine) ListPodSandboxMetrics(context.Context, *rt.ListPodSandboxMetricsRequest) (*rt.ListPodSandboxMetricsResponse, error) {
	out := &rt.ListPodSandboxMetricsResponse{}
	for _, s := range e.records.allSandboxes() {
		if !s.Ready {
			continue
		}
		pod := &rt.PodSandboxMetrics{PodSandboxId: s.ID}
		whole := func(list []cri.Sample) (metrics []*rt.Metric) {
			for _, m := range list {
				metrics = append(metrics, &rt.Metric{Name: m.Name, MetricType: m.Kind, LabelValues: m.Labels, Value: value(uint64(max(0, m.Value)))})
			}
			return metrics
		}
		err := e.sample(s, func(container string, list []cri.Sample) {
			if container == "" {
				pod.Metrics = append(pod.Metrics, whole(list)...)
				return
			}
			pod.ContainerMetrics = append(pod.ContainerMetrics, &rt.ContainerMetrics{ContainerId: container, Metrics: whole(list)})
		})
		if err != nil {
			return nil, coded(err)
		}
		out.PodMetrics = append(out.PodMetrics, pod)
	}
	return out, nil
}

// Samples implements cri.Sampler.
func (e *Engine) Samples(context.Context) ([]cri.Sample, error) {
	var all []cri.Sample
	for _, s := range e.records.allSandboxes() {
		if !s.Ready {
			continue
		}
		if err := e.sample(s, func(_ string, list []cri.Sample) { all = append(all, list...) }); err != nil {
			return nil, coded(err)
		}
	}
	return all, nil
}

// sample measures a sandbox, "", and each of its running containers.
func (e *Engine) sample(s *sandbox, tell func(container string, list []cri.Sample)) error {
	st, used, err := e.sandboxStats(s)
	if err != nil {
		return err
	}
	tell("", e.podSamples(s))
	for _, c := range st.GetLinux().GetContainers() {
		tell(c.GetAttributes().GetId(), e.containerSamples(s, c, used[c.GetAttributes().GetId()]))
	}
	return nil
}

func (e *Engine) read(about *subject, labels []string) (list []cri.Sample) {
	for _, m := range containerMeasures() {
		for _, r := range m.of(about) {
			list = append(list, cri.Sample{Name: m.name, Kind: m.kind, Labels: slices.Concat(labels, r.labels), Value: r.value})
		}
	}
	return list
}

// podSamples are those that a pod has as a whole: of its cgroup, which has no
// container's name as with cAdvisor, and of its network interface. A pod of the host's
// network, or of a plugin's, has none of an interface.
func (e *Engine) podSamples(s *sandbox) (list []cri.Sample) {
	meta := s.Config.GetMetadata()
	if u, err := e.runtime.GroupStats(s.ID); err == nil {
		list = e.read(&subject{used: &u, now: time.Now()}, []string{"", s.Config.GetLinux().GetCgroupParent(), "", "", meta.GetNamespace(), meta.GetName()})
	}
	passed, connected := e.network.Usage(s.ID)
	if !connected {
		return list
	}
	labels := []string{"POD", s.ID, "", s.ID, meta.GetNamespace(), meta.GetName(), passed.Interface}
	for _, m := range passages() {
		list = append(list, cri.Sample{Name: m.name, Kind: rt.MetricType_COUNTER, Labels: labels, Value: float64(m.of(passed))})
	}
	return list
}

func (e *Engine) containerSamples(s *sandbox, c *rt.ContainerStats, used *container.Usage) []cri.Sample {
	meta, id := s.Config.GetMetadata(), c.GetAttributes().GetId()
	about := &subject{stats: c, used: used, now: time.Now(), root: e.images.Root()}
	image := ""
	if known := e.records.container(id); known != nil {
		image, about.limits = imageAsked(known).GetImage(), known.Config.GetLinux().GetResources()
	}
	if st, err := e.runtime.Status(id); err == nil {
		about.begun = st.StartedAt
	}
	if pids, err := e.runtime.Pids(id); err == nil {
		about.processes = look(pids)
	}
	return e.read(about, []string{c.GetAttributes().GetMetadata().GetName(), id, image, id, meta.GetNamespace(), meta.GetName()})
}
