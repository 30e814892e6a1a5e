package tally

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
)

// pods counts what becomes of pods besides the starts and ends of their containers.
type pods struct {
	workSeconds, boxSeconds                        *prometheus.HistogramVec
	takenSeconds, sentSeconds, readSeconds, sizes  prometheus.Histogram
	totalSeconds, sliSeconds                       prometheus.Histogram
	firstSeconds                                   prometheus.Gauge
	refused, preempted, modes, restarted, boxFault *prometheus.CounterVec
	orphaned, inUsers, inUsersFault                prometheus.Counter
	slept, fallbacks                               prometheus.Counter
}

func newPods(t *Tally) pods {
	p := pods{
		workSeconds:  histograms(t, "kubelet_pod_worker_duration_seconds", "Seconds that one look at a pod took, by what it was for: create, update, sync, or terminated, once it is to end.", prometheus.DefBuckets, "operation_type"),
		boxSeconds:   histograms(t, "kubelet_run_podsandbox_duration_seconds", "Seconds to make a pod's sandbox, by the handler of its runtime class.", prometheus.DefBuckets, "runtime_handler"),
		takenSeconds: histogram(t, "kubelet_pod_worker_start_duration_seconds", "Seconds from when the agent saw a pod until its owner began.", prometheus.DefBuckets),
		sentSeconds: histogram(t, "kubelet_pod_status_sync_duration_seconds", "Seconds from a change of a pod's status until the API server had it, whatever else changed meanwhile.",
			[]float64{0.010, 0.050, 0.100, 0.500, 1, 5, 10, 20, 30, 45, 60}),
		readSeconds: histogram(t, "kubelet_pleg_pod_relist_duration_seconds", "Seconds to ask the engine what there is of one pod.", prometheus.DefBuckets),
		sizes:       histogram(t, "kubelet_containers_per_pod_count", "The number of containers per pod.", prometheus.ExponentialBuckets(1, 2, 5)),
		totalSeconds: histogram(t, "kubelet_pod_start_total_duration_seconds",
			"Seconds from a pod's creation until all its containers had started and the API said so, with all pulls and init containers.", startBuckets),
		sliSeconds: histogram(t, "kubelet_pod_start_sli_duration_seconds",
			"Seconds from a pod's creation until all its containers had started and the API said so, less those of pulls and init containers; of pods without volumes that last.", startBuckets),
		refused:      counters(t, "admission_rejections_total", "Pods that the node did not take, by reason.", "reason"),
		preempted:    counters(t, "preemptions", "Cumulative number of pod preemptions by preemption resource", "preemption_signal"),
		modes:        counters(t, "pod_level_resources_admission_total", "Pods that the node took, by where their resources are given and by QoS class.", "config_mode", "qos_class"),
		restarted:    counters(t, "restarted_pods_total", "Pods that came again with the same UID while the one before was being brought down.", "static"),
		boxFault:     counters(t, "run_podsandbox_errors_total", "Sandboxes that could not be made, by the handler of their runtime class.", "runtime_handler"),
		orphaned:     counter(t, "orphaned_runtime_pods_total", "Pods that the engine had and nobody knew, and that were brought down."),
		inUsers:      counter(t, "started_user_namespaced_pods_total", "Cumulative number of pods with user namespaces started."),
		inUsersFault: counter(t, "started_user_namespaced_pods_errors_total", "Cumulative number of errors when starting pods with user namespaces."),
		slept:        counter(t, "sleep_action_terminated_early_total", "Sleeping lifecycle hooks that were ended before their time."),
		fallbacks:    counter(t, "lifecycle_handler_http_fallbacks_total", "Lifecycle hooks over HTTPS whose server spoke HTTP, and got that."),
	}
	// Upstream's is a number that isn't there before it is known.
	p.firstSeconds = prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_first_network_pod_start_sli_duration_seconds",
		Help: "Seconds to start the node's first pod with a network of its own, less those of pulls and init containers."})
	t.all = append(t.all, p.firstSeconds)
	for _, static := range []string{"", "true"} {
		p.restarted.WithLabelValues(static)
	}
	return p
}

// What a look at a pod is for.
const (
	Create     = "create"
	Update     = "update"
	Sync       = "sync"
	Terminated = "terminated"
)

// PodSynced counts a look at a pod, with all decisions that came of it.
func (t *Tally) PodSynced(operation string, took time.Duration) {
	t.pods.workSeconds.WithLabelValues(operation).Observe(took.Seconds())
}

// PodTaken counts a pod whose owner begins, and that waited so long for it.
func (t *Tally) PodTaken(waited time.Duration) { t.pods.takenSeconds.Observe(waited.Seconds()) }

// PodRead counts a question to the engine about one pod.
func (t *Tally) PodRead(took time.Duration) { t.pods.readSeconds.Observe(took.Seconds()) }

// StatusSent counts a status that the API server has now, which changed so long ago.
func (t *Tally) StatusSent(after time.Duration) { t.pods.sentSeconds.Observe(after.Seconds()) }

// PodAdmitted counts a pod that the node has taken.
func (t *Tally) PodAdmitted(pod *corev1.Pod) {
	t.pods.sizes.Observe(float64(len(pod.Spec.Containers)))
	t.pods.modes.WithLabelValues(resourceMode(pod), strings.ToLower(string(spec.QoS(pod)))).Inc()
}

// resourceMode is where a pod's resources are given, in upstream's words.
func resourceMode(pod *corev1.Pod) string {
	whole := pod.Spec.Resources != nil && len(pod.Spec.Resources.Requests)+len(pod.Spec.Resources.Limits) > 0
	each := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			each = each || len(list[i].Resources.Requests)+len(list[i].Resources.Limits) > 0
		}
	}
	switch {
	case whole && each:
		return "pod_and_container_level"
	case whole:
		return "pod_level"
	case each:
		return "container_level"
	}
	return ""
}

// refusals are the reasons that are counted by name; all others would be of anybody's
// making.
var refusals = map[string]bool{
	"AppArmor": true, "PodOSSelectorNodeLabelDoesNotMatch": true, "PodOSNotSupported": true, "InvalidNodeInfo": true,
	"InitContainerRestartPolicyForbidden": true, "SupplementalGroupsPolicyNotSupported": true, "UnexpectedAdmissionError": true,
	"UnknownReason": true, "UnexpectedPredicateFailureType": true, "OutOfcpu": true, "OutOfmemory": true, "OutOfephemeral-storage": true,
	"OutOfpods": true, "PodLevelResourcesNotAdmittedReason": true, "PodFeatureUnsupported": true, "Evicted": true, "SysctlForbidden": true,
	"TopologyAffinityError": true, "NodeShutdown": true, "VolumeAttachmentLimitExceeded": true,
}

// PodRefused counts a pod that the node did not take.
func (t *Tally) PodRefused(reason string) {
	switch {
	case refusals[reason]:
	case strings.HasPrefix(reason, "OutOf"):
		reason = "OutOfExtendedResources"
	default:
		reason = "Other"
	}
	t.pods.refused.WithLabelValues(reason).Inc()
}

// PodPreempted counts a pod that had to go for the sake of one that lacked a resource.
func (t *Tally) PodPreempted(resource string) { t.pods.preempted.WithLabelValues(resource).Inc() }

// PodRestarted counts a pod that comes again while it is still being brought down.
func (t *Tally) PodRestarted(static bool) {
	label := ""
	if static {
		label = strconv.FormatBool(static)
	}
	t.pods.restarted.WithLabelValues(label).Inc()
}

// PodOrphaned counts a pod of the engine's that nobody knows.
func (t *Tally) PodOrphaned() { t.pods.orphaned.Inc() }

// SleepCut counts a sleeping hook that was ended before its time.
func (t *Tally) SleepCut() { t.pods.slept.Inc() }

// HookFellBack counts a hook over HTTPS that was answered over HTTP.
func (t *Tally) HookFellBack() { t.pods.fallbacks.Inc() }

// Start is how long a pod took from its creation until it ran and the API said so.
type Start struct {
	Total time.Duration
	// Excused is the part that doesn't count: pulls and init containers.
	Excused time.Duration
}

// PodBegan counts a pod all of whose containers have started, as the API has it by
// now. Pods with volumes that last are left out of the SLI, upstream's definition of
// which says so.
func (t *Tally) PodBegan(pod *corev1.Pod, s Start) {
	t.pods.totalSeconds.Observe(s.Total.Seconds())
	if lasting(pod) {
		return
	}
	sli := (s.Total - s.Excused).Seconds()
	t.pods.sliSeconds.Observe(sli)
	if !pod.Spec.HostNetwork {
		t.first.Do(func() { t.pods.firstSeconds.Set(sli) })
	}
}

// lasting: a volume of the pod is none of those that go with it.
func lasting(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Secret == nil && v.ConfigMap == nil && v.DownwardAPI == nil && v.EmptyDir == nil && v.Projected == nil {
			return true
		}
	}
	return false
}

// Box is an attempt to make a pod's sandbox.
type Box struct {
	// Handler is that of the pod's runtime class, "" for none.
	Handler string
	// Users: the pod has a user namespace of its own.
	Users bool
	Took  time.Duration
	Err   error
}

// PodStarted counts an attempt to make a pod's sandbox.
func (t *Tally) PodStarted(b Box) {
	t.startedPods.Inc()
	t.pods.boxSeconds.WithLabelValues(b.Handler).Observe(b.Took.Seconds())
	if b.Users {
		t.pods.inUsers.Inc()
	}
	if b.Err == nil {
		return
	}
	t.startedPodErrors.Inc()
	t.pods.boxFault.WithLabelValues(b.Handler).Inc()
	if b.Users {
		t.pods.inUsersFault.Inc()
	}
}

// UsersFailed counts a pod with users of its own of which a container could not be
// started.
func (t *Tally) UsersFailed() { t.pods.inUsersFault.Inc() }
