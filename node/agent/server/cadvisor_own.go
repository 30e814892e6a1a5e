package server

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// machine is how large the node is, and which it is.
func (p *page) machine() {
	who := fmt.Sprintf("{boot_id=%q,machine_id=%q,system_uuid=%q}", line("/proc/sys/kernel/random/boot_id"), line("/etc/machine-id"), line("/sys/class/dmi/id/product_uuid"))
	one := func(name, help string, value int) {
		p.family(name, "gauge", help)
		p.line(name, who, float64(value), time.Time{})
	}
	one("machine_cpu_cores", "Number of logical CPU cores.", runtime.NumCPU())
	if cores, sockets := processors("/sys/devices/system/cpu"); cores > 0 {
		one("machine_cpu_physical_cores", "Number of physical CPU cores.", cores)
		one("machine_cpu_sockets", "Number of CPU sockets.", sockets)
	}
	info := meminfo()
	one("machine_memory_bytes", "Amount of memory installed on the machine.", int(info["MemTotal:"]))     //nolint:gosec // of one machine
	one("machine_swap_bytes", "Amount of swap memory available on the machine.", int(info["SwapTotal:"])) //nolint:gosec // of one machine
	failed := 0.0
	if len(info) == 0 {
		failed = 1
	}
	p.family("machine_scrape_error", "gauge", "1 if there was an error while getting machine metrics, 0 otherwise.")
	p.line("machine_scrape_error", "", failed, time.Time{})
}

// line is what a file of one line says, "" when it can't be read.
func line(path string) string {
	return strings.Join(fields(path), " ")
}

// processors counts cores and sockets below a directory of sysfs.
func processors(dir string) (cores, sockets int) {
	places, _ := filepath.Glob(filepath.Join(dir, "cpu[0-9]*", "topology")) // the pattern is well formed
	core, socket := map[string]bool{}, map[string]bool{}
	for _, place := range places {
		packed := line(filepath.Join(place, "physical_packedid"))
		socket[packed] = true
		core[packed+"/"+line(filepath.Join(place, "core_id"))] = true
	}
	return len(core), len(socket)
}

// rootSamples are what the whole machine uses, as cAdvisor tells of the root of all
// cgroups.
func rootSamples(n *stats.NodeStats) (list []cri.Sample) {
	add := func(name string, kind rt.MetricType, value *uint64, unit float64, extra ...string) {
		if value != nil {
			list = append(list, cri.Sample{Name: name, Kind: kind, Labels: append([]string{"", "/", "", "", "", ""}, extra...), Value: float64(*value) / unit})
		}
	}
	if n.CPU != nil {
		add("container_cpu_usage_seconds_total", rt.MetricType_COUNTER, n.CPU.UsageCoreNanoSeconds, 1e9, "total")
	}
	if n.Memory != nil {
		add("container_memory_usage_bytes", rt.MetricType_GAUGE, n.Memory.UsageBytes, 1)
		add("container_memory_working_set_bytes", rt.MetricType_GAUGE, n.Memory.WorkingSetBytes, 1)
		add("container_memory_rss", rt.MetricType_GAUGE, n.Memory.RSSBytes, 1)
	}
	for _, what := range []string{"cpu", "memory", "io"} {
		if p := nodePressure(what); p != nil {
			add("container_pressure_"+what+"_waiting_seconds_total", rt.MetricType_COUNTER, &p.Some.Total, 1e6)
			add("container_pressure_"+what+"_stalled_seconds_total", rt.MetricType_COUNTER, &p.Full.Total, 1e6)
		}
	}
	return list
}

// seen is a container that runs, with what it was promised.
type seen struct {
	labels string
	stats  *stats.ContainerStats
	spec   *corev1.Container
}

// containers are the agent's own metrics of the containers that run.
func (p *page) containers(known []*corev1.Pod, measured []stats.PodStats) {
	list := running(known, measured)
	each := func(name, kind, help string, value func(seen) (float64, bool)) {
		p.family(name, kind, help)
		for _, c := range list {
			if v, ok := value(c); ok {
				p.line(name, "{"+c.labels+"}", v, time.Time{})
			}
		}
	}
	const cpu = "container_cpu_usage_seconds_total"
	p.family(cpu, "counter", "Cumulative cpu time consumed in seconds.")
	for _, c := range list {
		p.cpu(cpu, "{"+c.labels+`,cpu="total"}`, c.stats.CPU)
	}
	each("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", func(c seen) (float64, bool) {
		return float64(c.stats.StartTime.Unix()), !c.stats.StartTime.IsZero()
	})
	now := float64(time.Now().Unix())
	each("container_last_seen", "gauge", "Last time a container was seen by the exporter", func(seen) (float64, bool) { return now, true })
	each("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", func(c seen) (float64, bool) {
		return float64(c.spec.Resources.Limits.Memory().Value()), true // 0 for none
	})
	each("container_spec_cpu_shares", "gauge", "CPU share of the container.", func(c seen) (float64, bool) {
		return float64(spec.Shares(c.spec.Resources.Requests.Cpu().MilliValue())), true
	})
	const period = 100_000
	each("container_spec_cpu_period", "gauge", "CPU period of the container.", func(seen) (float64, bool) { return period, true })
	each("container_spec_cpu_quota", "gauge", "CPU quota of the container.", func(c seen) (float64, bool) {
		limit := c.spec.Resources.Limits.Cpu().MilliValue()
		return float64(limit) * period / 1000, limit > 0
	})
}

// running brings together what is measured of containers and what is known of them.
func running(known []*corev1.Pod, measured []stats.PodStats) []seen {
	pods := map[string]*corev1.Pod{}
	for _, p := range known {
		pods[string(p.UID)] = p
	}
	var list []seen
	for i := range measured {
		pod := pods[measured[i].PodRef.UID]
		if pod == nil {
			continue
		}
		for j := range measured[i].Containers {
			c := &measured[i].Containers[j]
			of := spec.Container(pod, c.Name)
			if of == nil {
				continue
			}
			_, id, _ := strings.Cut(containerID(pod, c.Name), "://")
			labels := fmt.Sprintf("container=%q,id=%q,image=%q,name=%q,namespace=%q,pod=%q", c.Name, id, of.Image, id, pod.Namespace, pod.Name)
			list = append(list, seen{labels, c, of})
		}
	}
	return list
}

func containerID(pod *corev1.Pod, name string) string {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return list[i].ContainerID
			}
		}
	}
	return ""
}
