package server

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// metrics is /metrics: the agent's own.
func (s *Server) metrics() http.HandlerFunc {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	registry.MustRegister(s.collectors()...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP
}

// collectors are of all that is not the Go runtime's.
func (s *Server) collectors() []prometheus.Collector {
	return slices.Concat([]prometheus.Collector{claimCounts{s}, logCounts{s}, program{s.cfg.Version, s.cfg.Gates}}, s.tally.all(), s.cfg.Counts)
}

// Collectors are what /metrics of a server with this configuration has, but for what the
// Go runtime tells of itself.
func Collectors(cfg Config) []prometheus.Collector {
	return (&Server{cfg: cfg, tally: newRequests()}).collectors()
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// resourceMetrics is /metrics/resource: usage as metrics-server scrapes it, by
// upstream's names.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	sum, err := s.collect(r.Context(), false)
	page := &page{}
	if err == nil {
		page.node(&sum.Node)
		page.pods(sum.Pods)
	}
	failed := float64(one(err != nil))
	page.family("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise")
	page.line("resource_scrape_error", "", failed, time.Time{})
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, page.text.String())
}

// page is a page of metrics in Prometheus' text format.
type page struct {
	text strings.Builder
	// made are the families that are on the page.
	made map[string]bool
}

func (p *page) family(name, kind, help string) {
	if p.made == nil {
		p.made = map[string]bool{}
	}
	p.made[name] = true
	fmt.Fprintf(&p.text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// line writes one value; a zero time is left out.
func (p *page) line(name, labels string, value float64, at time.Time) {
	p.text.WriteString(name + labels + " " + strconv.FormatFloat(value, 'g', -1, 64))
	if !at.IsZero() {
		p.text.WriteString(" " + strconv.FormatInt(at.UnixMilli(), 10))
	}
	p.text.WriteByte('\n')
}

func (p *page) node(n *stats.NodeStats) {
	p.family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds")
	p.cpu("node_cpu_usage_seconds_total", "", n.CPU)
	p.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
	p.memory("node_memory_working_set_bytes", "", n.Memory)
	p.family("node_swap_usage_bytes", "gauge", "Current swap usage of the node in bytes. Reported only on non-windows systems")
	p.swap("node_swap_usage_bytes", "", n.Swap)
}

func (p *page) pods(pods []stats.PodStats) {
	each := func(name, kind, help string, line func(name, labels string, c *stats.ContainerStats)) {
		p.family(name, kind, help)
		for i := range pods {
			for j := range pods[i].Containers {
				c := &pods[i].Containers[j]
				line(name, fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", c.Name, pods[i].PodRef.Namespace, pods[i].PodRef.Name), c)
			}
		}
	}
	each("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds",
		func(name, l string, c *stats.ContainerStats) { p.cpu(name, l, c.CPU) })
	each("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes",
		func(name, l string, c *stats.ContainerStats) { p.memory(name, l, c.Memory) })
	each("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", func(name, l string, c *stats.ContainerStats) {
		if t := c.StartTime.Time; !t.IsZero() {
			p.line(name, l, float64(t.UnixNano())/1e9, time.Time{})
		}
	})
	each("container_swap_usage_bytes", "gauge", "Current amount of the container swap usage in bytes. Reported only on non-windows systems",
		func(name, l string, c *stats.ContainerStats) { p.swap(name, l, c.Swap) })
	each("container_swap_limit_bytes", "gauge", "Current amount of the container swap limit in bytes. Reported only on non-windows systems",
		func(name, l string, c *stats.ContainerStats) {
			if s := c.Swap; s != nil && s.SwapUsageBytes != nil && s.SwapAvailableBytes != nil {
				p.line(name, l, float64(*s.SwapUsageBytes+*s.SwapAvailableBytes), s.Time.Time)
			}
		})
	whole := func(name, kind, help string, line func(name, labels string, of *stats.PodStats)) {
		p.family(name, kind, help)
		for i := range pods {
			line(name, fmt.Sprintf("{namespace=%q,pod=%q}", pods[i].PodRef.Namespace, pods[i].PodRef.Name), &pods[i])
		}
	}
	whole("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds",
		func(name, l string, of *stats.PodStats) { p.cpu(name, l, of.CPU) })
	whole("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes",
		func(name, l string, of *stats.PodStats) { p.memory(name, l, of.Memory) })
	whole("pod_swap_usage_bytes", "gauge", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
		func(name, l string, of *stats.PodStats) { p.swap(name, l, of.Swap) })
}

func (p *page) cpu(name, labels string, c *stats.CPUStats) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		p.line(name, labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.Time)
	}
}

func (p *page) memory(name, labels string, m *stats.MemoryStats) {
	if m != nil && m.WorkingSetBytes != nil {
		p.line(name, labels, float64(*m.WorkingSetBytes), m.Time.Time)
	}
}

func (p *page) swap(name, labels string, s *stats.SwapStats) {
	if s != nil && s.SwapUsageBytes != nil {
		p.line(name, labels, float64(*s.SwapUsageBytes), s.Time.Time)
	}
}
