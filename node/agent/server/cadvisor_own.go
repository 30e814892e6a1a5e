package server

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/spec"
)

// machine is how large the node is.
func (p *page) machine() {
	p.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.")
	p.line("machine_cpu_cores", "", float64(runtime.NumCPU()), time.Time{})
	p.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.")
	p.line("machine_memory_bytes", "", float64(meminfo()["MemTotal:"]), time.Time{})
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
