package server

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/usage"
)

// program tells what the node is: the version whose API it speaks, and which of
// upstream's gates that concern nodes are on. It is a prometheus.Collector.
type program struct{ version string }

// feature is one of upstream's feature gates for nodes and what it comes to here.
type feature struct {
	name, stage string
	on          float64
}

// features are those of upstream's gates of v1.37 that are not settled yet and whose
// effect on a node can be told from outside.
var features = []feature{
	{"CPUManagerPolicyBetaOptions", "BETA", 1},
	{"ContainerCheckpoint", "BETA", 1}, // of an engine that can
	{"ContainerRestartRules", "BETA", 1},
	{"DRAConsumableCapacity", "BETA", 1},
	{"EventedPLEG", "ALPHA", 1},
	{"ExtendWebSocketsToKubelet", "BETA", 0}, // the API server translates for all nodes
	{"GracefulNodeShutdown", "BETA", 1},
	{"GracefulNodeShutdownBasedOnPodPriority", "BETA", 1},
	{"ImageVolumeWithDigest", "ALPHA", 0},
	{"InPlacePodLevelResourcesVerticalScaling", "BETA", 1},
	{"KubeletCrashLoopBackOffMax", "BETA", 1},
	{"KubeletEnsureSecretPulledImages", "BETA", 1},
	{"KubeletSeparateDiskGC", "BETA", 1},
	{"KubeletServiceAccountTokenForCredentialProviders", "BETA", 1},
	{"MemoryQoS", "BETA", 1},
	{"PodAndContainerStatsFromCRI", "BETA", 1},
	{"PodLevelResourceManagers", "BETA", 0},
	{"PodLevelResources", "BETA", 1},
	{"PodsAPI", "BETA", 1},
	{"ReloadKubeletClientCAFile", "BETA", 1},
	{"ReloadKubeletServerCertificateFile", "BETA", 0}, // certificates are the cluster's, not a file's
	{"ResourceHealthStatus", "BETA", 1},
	{"ResourceHealthStatusMessage", "BETA", 1},
	{"RestartAllContainersOnContainerExits", "BETA", 1},
	{"RotateKubeletServerCertificate", "BETA", 1},
	{"TopologyManagerPolicyBetaOptions", "BETA", 1},
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
	for _, f := range features {
		to <- prometheus.MustNewConstMetric(featureDesc, prometheus.GaugeValue, f.on, f.name, f.stage)
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
