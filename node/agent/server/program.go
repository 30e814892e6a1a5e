package server

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/usage"
)

// program tells what the node is: the version whose API it speaks, and which of
// upstream's gates are on. It is a prometheus.Collector.
type program struct {
	version string
	gates   []settings.Gate
}

var (
	buildDesc = prometheus.NewDesc("kubernetes_build_info", "What the program is: always 1, labelled with the version of the API that it speaks, with its compiler and its platform.",
		[]string{"major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform"}, nil)
	featureDesc = prometheus.NewDesc("kubernetes_feature_enabled", "Which of upstream's feature gates are on.", []string{"name", "stage"}, nil)
	logDesc     = prometheus.NewDesc("kubelet_container_log_filesystem_used_bytes", "Bytes used by the container's logs on the filesystem.",
		[]string{"uid", "namespace", "pod", "container"}, nil)
)

// Describe implements prometheus.Collector.
func (program) Describe(to chan<- *prometheus.Desc) { to <- buildDesc; to <- featureDesc }

// Collect implements prometheus.Collector.
func (p program) Collect(to chan<- prometheus.Metric) {
	parts := append(strings.SplitN(strings.TrimPrefix(p.version, "v"), ".", 3), "", "")
	to <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1,
		parts[0], parts[1], p.version, "", "clean", "", runtime.Version(), runtime.Compiler, runtime.GOOS+"/"+runtime.GOARCH)
	for _, g := range p.gates {
		on := 0.0
		if g.On {
			on = 1
		}
		to <- prometheus.MustNewConstMetric(featureDesc, prometheus.GaugeValue, on, g.Name, g.Stage)
	}
}

// logCounts are the sizes of containers' logs. It is a prometheus.Collector.
type logCounts struct{ server *Server }

// Describe implements prometheus.Collector.
func (logCounts) Describe(to chan<- *prometheus.Desc) { to <- logDesc }

// Collect implements prometheus.Collector.
func (l logCounts) Collect(to chan<- prometheus.Metric) {
	where := l.server.cfg.Disks.Logs
	if where == nil || l.server.cfg.Node == nil {
		return
	}
	for _, pod := range l.server.cfg.Node.Pods() {
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for i := range list {
				if list[i].State.Running == nil {
					continue // as upstream, which tells of what it measures
				}
				used := usage.Walk(where(pod) + "/" + list[i].Name)
				to <- prometheus.MustNewConstMetric(logDesc, prometheus.GaugeValue, float64(used.Bytes), string(pod.UID), pod.Namespace, pod.Name, list[i].Name)
			}
		}
	}
}
