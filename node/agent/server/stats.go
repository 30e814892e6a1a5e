package server

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// The shape of /stats/summary, the parts that metrics-server and kubectl read
// (k8s.io/kubelet/pkg/apis/stats/v1alpha1).
type (
	summary struct {
		Node nodeStats  `json:"node"`
		Pods []podStats `json:"pods"`
	}
	nodeStats struct {
		NodeName  string       `json:"nodeName"`
		StartTime time.Time    `json:"startTime"`
		CPU       *cpuStats    `json:"cpu,omitempty"`
		Memory    *memoryStats `json:"memory,omitempty"`
	}
	podStats struct {
		PodRef     podRef           `json:"podRef"`
		StartTime  time.Time        `json:"startTime"`
		Containers []containerStats `json:"containers"`
		CPU        *cpuStats        `json:"cpu,omitempty"`
		Memory     *memoryStats     `json:"memory,omitempty"`
	}
	podRef struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	}
	containerStats struct {
		Name      string       `json:"name"`
		StartTime time.Time    `json:"startTime"`
		CPU       *cpuStats    `json:"cpu,omitempty"`
		Memory    *memoryStats `json:"memory,omitempty"`
	}
	cpuStats struct {
		Time                 time.Time `json:"time"`
		UsageNanoCores       *uint64   `json:"usageNanoCores,omitempty"`
		UsageCoreNanoSeconds *uint64   `json:"usageCoreNanoSeconds,omitempty"`
	}
	memoryStats struct {
		Time            time.Time `json:"time"`
		AvailableBytes  *uint64   `json:"availableBytes,omitempty"`
		UsageBytes      *uint64   `json:"usageBytes,omitempty"`
		WorkingSetBytes *uint64   `json:"workingSetBytes,omitempty"`
		RSSBytes        *uint64   `json:"rssBytes,omitempty"`
		PageFaults      *uint64   `json:"pageFaults,omitempty"`
	}
)

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	out, err := s.collect(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.json(w, out)
}

// collect asks the engine for all pods' usage and the kernel for the node's.
func (s *Server) collect(ctx context.Context) (*summary, error) {
	boxes, err := s.cfg.Engine.ListPodSandboxStats(ctx, &rt.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := s.cfg.Engine.ListContainerStats(ctx, &rt.ListContainerStatsRequest{})
	if err != nil {
		return nil, err
	}
	out := &summary{Node: s.nodeStats(), Pods: []podStats{}}
	place := map[string]int{}
	for _, b := range boxes.GetStats() {
		meta := b.GetAttributes().GetMetadata()
		place[meta.GetUid()] = len(out.Pods)
		p := podStats{
			PodRef:     podRef{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
			Containers: []containerStats{}, CPU: cpu(b.GetLinux().GetCpu()), Memory: memory(b.GetLinux().GetMemory()),
		}
		for _, known := range s.cfg.Node.Pods() {
			if string(known.UID) == meta.GetUid() && known.Status.StartTime != nil {
				p.StartTime = known.Status.StartTime.Time
			}
		}
		out.Pods = append(out.Pods, p)
	}
	for _, c := range containers.GetStats() {
		i, ok := place[c.GetAttributes().GetLabels()[actual.LabelPodUID]]
		if !ok {
			continue
		}
		out.Pods[i].Containers = append(out.Pods[i].Containers, containerStats{
			Name: c.GetAttributes().GetMetadata().GetName(), StartTime: out.Pods[i].StartTime,
			CPU: cpu(c.GetCpu()), Memory: memory(c.GetMemory()),
		})
	}
	return out, nil
}

func cpu(u *rt.CpuUsage) *cpuStats {
	if u == nil {
		return nil
	}
	return &cpuStats{
		Time: time.Unix(0, u.GetTimestamp()), UsageNanoCores: value(u.GetUsageNanoCores()),
		UsageCoreNanoSeconds: value(u.GetUsageCoreNanoSeconds()),
	}
}

func memory(u *rt.MemoryUsage) *memoryStats {
	if u == nil {
		return nil
	}
	return &memoryStats{
		Time: time.Unix(0, u.GetTimestamp()), AvailableBytes: value(u.GetAvailableBytes()), UsageBytes: value(u.GetUsageBytes()),
		WorkingSetBytes: value(u.GetWorkingSetBytes()), RSSBytes: value(u.GetRssBytes()), PageFaults: value(u.GetPageFaults()),
	}
}

func value(v *rt.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

// nodeStats reads the whole machine's usage. The kernel counts CPU in
// hundredths of a second.
func (s *Server) nodeStats() nodeStats {
	now := time.Now()
	n := nodeStats{NodeName: s.cfg.NodeName, StartTime: s.start}
	if ticks, ok := busyTicks(); ok {
		const nanosPerTick = 10_000_000
		used := ticks * nanosPerTick
		n.CPU = &cpuStats{Time: now, UsageCoreNanoSeconds: &used}
	}
	total, available := meminfo("MemTotal:"), meminfo("MemAvailable:")
	if total > available {
		used, resident := total-available, meminfo("AnonPages:")
		n.Memory = &memoryStats{Time: now, AvailableBytes: &available, UsageBytes: &used, WorkingSetBytes: &used, RSSBytes: &resident}
	}
	return n
}

// busyTicks sums the first line of /proc/stat without idle and iowait.
func busyTicks() (uint64, bool) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	total := uint64(0)
	// user nice system idle iowait irq softirq steal; guest time is in user.
	for i := 1; i < min(len(fields), 9); i++ {
		if i == 4 || i == 5 {
			continue
		}
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return 0, false
		}
		total += n
	}
	return total, len(fields) > 4
}

func meminfo(field string) uint64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
