package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/usage"
)

// Disks is where what pods keep on this node is, for what they use of it.
type Disks struct {
	// Node is a path on the file system of pods.
	Node string
	// Logs and Volumes say where a pod's logs and volumes are; a volume without a
	// directory of its own has none.
	Logs    func(*corev1.Pod) string
	Volumes func(*corev1.Pod) map[string]string
	// Claims says where the volumes of a pod's claims are, those that are on disks of
	// this node; nil when nobody knows.
	Claims func(*corev1.Pod) map[string]string
}

// summary is GET /stats/summary. As upstream, only_cpu_and_memory=true leaves all
// else out, which costs walks through directories.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	few := false
	if text := r.URL.Query().Get("only_cpu_and_memory"); text != "" {
		var err error
		if few, err = strconv.ParseBool(text); err != nil {
			http.Error(w, "cannot parse only_cpu_and_memory: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	out, err := s.collect(r.Context(), !few)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.json(w, out)
}

// collect asks the engine for all pods' usage and the kernel for the node's; with
// everything it asks for disks, networks, processes and pressure too.
func (s *Server) collect(ctx context.Context, everything bool) (*stats.Summary, error) {
	boxes, err := s.cfg.Engine.ListPodSandboxStats(ctx, &rt.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := s.cfg.Engine.ListContainerStats(ctx, &rt.ListContainerStatsRequest{})
	if err != nil {
		return nil, err
	}
	known := map[string]*corev1.Pod{}
	for _, p := range s.cfg.Node.Pods() {
		known[string(p.UID)] = p
	}
	images := s.imageDisk(ctx)
	out := &stats.Summary{Node: s.nodeStats(images, everything), Pods: []stats.PodStats{}}
	place := map[string]int{}
	for _, b := range boxes.GetStats() {
		meta := b.GetAttributes().GetMetadata()
		place[meta.GetUid()] = len(out.Pods)
		out.Pods = append(out.Pods, podStats(b, known[meta.GetUid()], everything))
	}
	for _, c := range containers.GetStats() {
		uid := c.GetAttributes().GetLabels()[actual.LabelPodUID]
		if i, ok := place[uid]; ok {
			out.Pods[i].Containers = append(out.Pods[i].Containers, containerStats(c, known[uid], everything))
		}
	}
	for i := range out.Pods {
		p := &out.Pods[i]
		if pod := known[p.PodRef.UID]; pod != nil && everything {
			s.podDisk(pod, p, images)
		}
	}
	if everything {
		out.Node.SystemContainers = systemContainers(out, s.cfg.PodMemory)
	}
	s.rates.fill(out)
	return out, nil
}

func podStats(b *rt.PodSandboxStats, pod *corev1.Pod, everything bool) stats.PodStats {
	meta, linux := b.GetAttributes().GetMetadata(), b.GetLinux()
	p := stats.PodStats{
		PodRef:     stats.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
		Containers: []stats.ContainerStats{}, CPU: cpu(linux.GetCpu()), Memory: memory(linux.GetMemory()), IO: waits(linux.GetIo()), Swap: swap(linux.GetContainers()),
	}
	if pod != nil && pod.Status.StartTime != nil {
		p.StartTime = *pod.Status.StartTime
	}
	if !everything {
		return p
	}
	if n := linux.GetNetwork(); n.GetDefaultInterface() != nil {
		p.Network = &stats.NetworkStats{Time: at(n.GetTimestamp()), InterfaceStats: face(n.GetDefaultInterface())}
		p.Network.Interfaces = []stats.InterfaceStats{p.Network.InterfaceStats}
		for _, other := range n.GetInterfaces() {
			p.Network.Interfaces = append(p.Network.Interfaces, face(other))
		}
	}
	if n := linux.GetProcess().GetProcessCount(); n != nil {
		p.ProcessStats = &stats.ProcessStats{ProcessCount: value(n)}
	}
	return p
}

func containerStats(c *rt.ContainerStats, pod *corev1.Pod, everything bool) stats.ContainerStats {
	name := c.GetAttributes().GetMetadata().GetName()
	out := stats.ContainerStats{Name: name, StartTime: started(pod, name), CPU: cpu(c.GetCpu()), Memory: memory(c.GetMemory()), IO: waits(c.GetIo()), Swap: swap([]*rt.ContainerStats{c})}
	if w := c.GetWritableLayer(); everything && w != nil {
		out.Rootfs = &stats.FsStats{Time: at(w.GetTimestamp()), UsedBytes: value(w.GetUsedBytes()), InodesUsed: value(w.GetInodesUsed())}
	}
	return out
}

// started is when the container that runs now did.
func started(pod *corev1.Pod, name string) metav1.Time {
	if pod == nil {
		return metav1.Time{}
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name && list[i].State.Running != nil {
				return list[i].State.Running.StartedAt
			}
		}
	}
	return metav1.Time{}
}

// podDisk adds what a pod has on this node's disks.
func (s *Server) podDisk(pod *corev1.Pod, p *stats.PodStats, images *stats.FsStats) {
	if s.cfg.Disks.Node == "" {
		return
	}
	node := s.nodeDisk()
	var all usage.Disk
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Rootfs != nil && images != nil {
			c.Rootfs.AvailableBytes, c.Rootfs.CapacityBytes = images.AvailableBytes, images.CapacityBytes
			c.Rootfs.Inodes, c.Rootfs.InodesFree = images.Inodes, images.InodesFree
		}
		if c.Rootfs != nil {
			all = all.Add(usage.Disk{Bytes: amount(c.Rootfs.UsedBytes), Inodes: amount(c.Rootfs.InodesUsed)})
		}
		logs := s.walk(s.cfg.Disks.Logs(pod) + "/" + c.Name)
		all = all.Add(logs)
		c.Logs = room(node, logs)
	}
	for name, dir := range s.cfg.Disks.Volumes(pod) {
		used := s.walk(dir)
		of := disk(dir)
		if of == nil {
			continue
		}
		p.VolumeStats = append(p.VolumeStats, stats.VolumeStats{Name: name, FsStats: *room(of, used)})
		if onDisk(pod, name) {
			all = all.Add(used)
		}
	}
	p.VolumeStats = append(p.VolumeStats, s.claimStats(pod)...)
	if node != nil {
		p.EphemeralStorage = room(node, all)
	}
}

// onDisk says whether a volume counts as the pod's local storage.
func onDisk(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == name {
			return v.EmptyDir == nil || v.EmptyDir.Medium == corev1.StorageMediumDefault
		}
	}
	return false
}

func at(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }

func cpu(u *rt.CpuUsage) *stats.CPUStats {
	if u == nil {
		return nil
	}
	return &stats.CPUStats{Time: at(u.GetTimestamp()), UsageNanoCores: value(u.GetUsageNanoCores()), UsageCoreNanoSeconds: value(u.GetUsageCoreNanoSeconds()), PSI: psi(u.GetPsi())}
}

func memory(u *rt.MemoryUsage) *stats.MemoryStats {
	if u == nil {
		return nil
	}
	return &stats.MemoryStats{
		Time: at(u.GetTimestamp()), AvailableBytes: value(u.GetAvailableBytes()), UsageBytes: value(u.GetUsageBytes()),
		WorkingSetBytes: value(u.GetWorkingSetBytes()), RSSBytes: value(u.GetRssBytes()), PageFaults: value(u.GetPageFaults()),
		MajorPageFaults: value(u.GetMajorPageFaults()), PSI: psi(u.GetPsi()),
	}
}

func waits(u *rt.IoUsage) *stats.IOStats {
	if u == nil {
		return nil
	}
	return &stats.IOStats{Time: at(u.GetTimestamp()), PSI: psi(u.GetPsi())}
}

// swap adds up what containers use of it, and may use besides.
func swap(list []*rt.ContainerStats) *stats.SwapStats {
	var out *stats.SwapStats
	var used, left uint64
	for _, c := range list {
		u := c.GetSwap()
		if u == nil {
			continue
		}
		if out == nil {
			out = &stats.SwapStats{SwapUsageBytes: &used}
		}
		out.Time = at(u.GetTimestamp())
		used += u.GetSwapUsageBytes().GetValue()
		if more := u.GetSwapAvailableBytes(); more != nil {
			left += more.GetValue()
			out.SwapAvailableBytes = &left
		}
	}
	return out
}

func psi(p *rt.PsiStats) *stats.PSIStats {
	if p == nil {
		return nil
	}
	data := func(d *rt.PsiData) stats.PSIData {
		return stats.PSIData{Total: d.GetTotal(), Avg10: d.GetAvg10(), Avg60: d.GetAvg60(), Avg300: d.GetAvg300()}
	}
	return &stats.PSIStats{Full: data(p.GetFull()), Some: data(p.GetSome())}
}

func face(u *rt.NetworkInterfaceUsage) stats.InterfaceStats {
	return stats.InterfaceStats{Name: u.GetName(), RxBytes: value(u.GetRxBytes()), RxErrors: value(u.GetRxErrors()), TxBytes: value(u.GetTxBytes()), TxErrors: value(u.GetTxErrors())}
}

func value(v *rt.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func amount(v *uint64) int64 {
	if v == nil {
		return 0
	}
	return int64(*v) //nolint:gosec // bytes of a disk
}

// rates makes of counters how fast they grow, between one question and the next.
type rates struct {
	mu   sync.Mutex
	last map[string]sample
}

// sample is what a counter was, and how fast it had grown by then, nil if nobody knew.
type sample struct {
	at    time.Time
	nanos uint64
	rate  *uint64
}

// leastSpan is the shortest time over which growth is told: two who ask one right after
// the other shall not see the noise of a moment, but both what was last known.
const leastSpan = 5 * time.Second

// next is a counter's sample after the one before it.
func (s sample) next(now sample) sample {
	past := now.at.Sub(s.at)
	switch {
	case s.at.IsZero() || now.nanos < s.nanos:
		return now
	case past < leastSpan && s.rate != nil, past <= 0:
		return s
	}
	rate := uint64(float64(now.nanos-s.nanos) / past.Seconds())
	now.rate = &rate
	return now
}

// fill sets UsageNanoCores where the engine has not; the first time there is none.
func (r *rates) fill(sum *stats.Summary) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := map[string]sample{}
	see := func(key string, c *stats.CPUStats) {
		if c == nil || c.UsageCoreNanoSeconds == nil {
			return
		}
		now[key] = r.last[key].next(sample{at: c.Time.Time, nanos: *c.UsageCoreNanoSeconds})
		if c.UsageNanoCores == nil {
			c.UsageNanoCores = now[key].rate
		}
	}
	see("", sum.Node.CPU)
	for i := range sum.Node.SystemContainers {
		see("system/"+sum.Node.SystemContainers[i].Name, sum.Node.SystemContainers[i].CPU)
	}
	if len(sum.Node.SystemContainers) == 0 { // not everything was asked for
		for key, s := range r.last {
			if strings.HasPrefix(key, "system/") {
				now[key] = s
			}
		}
	}
	for i := range sum.Pods {
		p := &sum.Pods[i]
		see(p.PodRef.UID, p.CPU)
		for j := range p.Containers {
			see(p.PodRef.UID+"/"+p.Containers[j].Name, p.Containers[j].CPU)
		}
	}
	r.last = now
}
