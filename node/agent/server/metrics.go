package server

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
)

// metrics is /metrics: the agent's own.
func (s *Server) metrics() http.HandlerFunc {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubelet_running_pods", Help: "Number of pods that are running on this node.",
		}, func() float64 {
			return float64(s.count(func(p *corev1.Pod) int { return one(p.Status.Phase == corev1.PodRunning) }))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubelet_running_containers", Help: "Number of containers that are running on this node.",
		}, func() float64 { return float64(s.count(runningContainers)) }),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP
}

func (s *Server) count(of func(*corev1.Pod) int) int {
	n := 0
	for _, p := range s.cfg.Node.Pods() {
		n += of(p)
	}
	return n
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func runningContainers(p *corev1.Pod) int {
	n := 0
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			n += one(list[i].State.Running != nil)
		}
	}
	return n
}

// resourceMetrics is /metrics/resource: usage as metrics-server scrapes it.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	sum, err := s.collect(r.Context())
	var b strings.Builder
	family := func(name, kind string) { fmt.Fprintf(&b, "# TYPE %s %s\n", name, kind) }
	family("scrape_error", "gauge")
	fmt.Fprintf(&b, "scrape_error %d\n", one(err != nil))
	family("resource_scrape_error", "gauge")
	fmt.Fprintf(&b, "resource_scrape_error %d\n", one(err != nil))
	if err == nil {
		family("node_cpu_usage_seconds_total", "counter")
		cpuLine(&b, "node_cpu_usage_seconds_total", "", sum.Node.CPU)
		family("node_memory_working_set_bytes", "gauge")
		memoryLine(&b, "node_memory_working_set_bytes", "", sum.Node.Memory)
		podLines(&b, sum.Pods, family)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, b.String())
}

func podLines(b *strings.Builder, pods []podStats, family func(name, kind string)) {
	each := func(name, kind string, line func(labels string, c containerStats)) {
		family(name, kind)
		for _, p := range pods {
			for _, c := range p.Containers {
				line(fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", c.Name, p.PodRef.Namespace, p.PodRef.Name), c)
			}
		}
	}
	each("container_cpu_usage_seconds_total", "counter", func(l string, c containerStats) {
		cpuLine(b, "container_cpu_usage_seconds_total", l, c.CPU)
	})
	each("container_memory_working_set_bytes", "gauge", func(l string, c containerStats) {
		memoryLine(b, "container_memory_working_set_bytes", l, c.Memory)
	})
	each("container_start_time_seconds", "gauge", func(l string, c containerStats) {
		fmt.Fprintf(b, "container_start_time_seconds%s %d\n", l, c.StartTime.Unix())
	})
	family("pod_cpu_usage_seconds_total", "counter")
	for _, p := range pods {
		cpuLine(b, "pod_cpu_usage_seconds_total", podLabels(p), p.CPU)
	}
	family("pod_memory_working_set_bytes", "gauge")
	for _, p := range pods {
		memoryLine(b, "pod_memory_working_set_bytes", podLabels(p), p.Memory)
	}
}

func podLabels(p podStats) string {
	return fmt.Sprintf("{namespace=%q,pod=%q}", p.PodRef.Namespace, p.PodRef.Name)
}

func cpuLine(b *strings.Builder, name, labels string, c *cpuStats) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		fmt.Fprintf(b, "%s%s %g %d\n", name, labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.UnixMilli())
	}
}

func memoryLine(b *strings.Builder, name, labels string, m *memoryStats) {
	if m != nil && m.WorkingSetBytes != nil {
		fmt.Fprintf(b, "%s%s %d %d\n", name, labels, *m.WorkingSetBytes, m.Time.UnixMilli())
	}
}
