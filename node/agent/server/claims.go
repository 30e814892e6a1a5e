package server

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// claimStats tells how full the volumes of a pod's claims are: as upstream for such
// volumes, the file system that a volume is on, whoever uses it.
func (s *Server) claimStats(pod *corev1.Pod) []stats.VolumeStats {
	if s.cfg.Disks.Claims == nil {
		return nil
	}
	var all []stats.VolumeStats
	paths := s.cfg.Disks.Claims(pod)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		of := disk(paths[v.Name])
		if of == nil {
			continue
		}
		inUse(of)
		claim := pod.Name + "-" + v.Name
		if v.PersistentVolumeClaim != nil {
			claim = v.PersistentVolumeClaim.ClaimName
		}
		all = append(all, stats.VolumeStats{Name: v.Name, FsStats: *of, PVCRef: &stats.PVCReference{Name: claim, Namespace: pod.Namespace}})
	}
	return all
}

// claimCounts are the claims' part of /metrics, by upstream's names.
type claimCounts struct{ server *Server }

// claimFamilies are one number each of a volume.
var claimFamilies = []struct {
	desc *prometheus.Desc
	of   func(*stats.FsStats) *uint64
}{
	{claimDesc("capacity_bytes", "Capacity in bytes of the volume"), func(f *stats.FsStats) *uint64 { return f.CapacityBytes }},
	{claimDesc("available_bytes", "Number of available bytes in the volume"), func(f *stats.FsStats) *uint64 { return f.AvailableBytes }},
	{claimDesc("used_bytes", "Number of used bytes in the volume"), func(f *stats.FsStats) *uint64 { return f.UsedBytes }},
	{claimDesc("inodes", "Maximum number of inodes in the volume"), func(f *stats.FsStats) *uint64 { return f.Inodes }},
	{claimDesc("inodes_free", "Number of free inodes in the volume"), func(f *stats.FsStats) *uint64 { return f.InodesFree }},
	{claimDesc("inodes_used", "Number of used inodes in the volume"), func(f *stats.FsStats) *uint64 { return f.InodesUsed }},
}

func claimDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("kubelet_volume_stats_"+name, help, []string{"namespace", "persistentvolumeclaim"}, nil)
}

// Describe implements prometheus.Collector.
func (claimCounts) Describe(to chan<- *prometheus.Desc) {
	for _, f := range claimFamilies {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector. A claim that several pods use is told
// of once.
func (c claimCounts) Collect(to chan<- prometheus.Metric) {
	told := map[stats.PVCReference]bool{}
	for _, pod := range c.server.cfg.Node.Pods() {
		for _, v := range c.server.claimStats(pod) {
			if told[*v.PVCRef] {
				continue
			}
			told[*v.PVCRef] = true
			for _, f := range claimFamilies {
				to <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, float64(*f.of(&v.FsStats)), v.PVCRef.Namespace, v.PVCRef.Name)
			}
		}
	}
}
