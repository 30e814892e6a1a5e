package tally

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"
)

// parts counts who is given parts of the machine: CPUs, memory, devices, claims. Its
// methods do nothing when the Tally is nil.
type parts struct {
	cpus, cpuFaults, memory, memoryFaults prometheus.Counter
	placed, placeFaults                   prometheus.Counter
	placeMillis                           prometheus.Histogram
	aligned, misaligned                   *prometheus.CounterVec
	plugins                               *prometheus.CounterVec
	deviceSeconds                         *prometheus.HistogramVec
	claimSeconds, driverSeconds           *prometheus.HistogramVec
	asked                                 map[string]*prometheus.CounterVec
	askFaults                             map[string]*prometheus.CounterVec
	askedAll                              *prometheus.CounterVec
	podsAsked                             map[string]*prometheus.CounterVec
	podsAskedAll                          *prometheus.CounterVec
	watchDrops                            prometheus.Counter
}

// Kinds of alignment, and whose it is: values of labels.
const (
	ScopePod       = "pod"
	ScopeContainer = "container"
	WholeCores     = "physical_cpu"
	OneNode        = "numa_node"
	OneCache       = "uncore_cache"
)

// Methods of the pod-resources API, as names of metrics have them.
const (
	ListResources   = "list"
	GetResources    = "get"
	GetAllAllocable = "get_allocatable"
)

// Methods of the pods API, as names of metrics have them.
const (
	ListPods  = "list"
	GetPod    = "get"
	WatchPods = "watch"
)

func newParts(t *Tally) parts {
	claims := prometheus.ExponentialBucketsRange(.1, 40, 15)
	p := parts{
		cpus:          counter(t, "cpu_manager_pinning_requests_total", "Containers that asked for CPUs of their own."),
		cpuFaults:     counter(t, "cpu_manager_pinning_errors_total", "Containers that asked for CPUs of their own and could not have them."),
		memory:        counter(t, "memory_manager_pinning_requests_total", "Containers that asked for memory of certain NUMA nodes."),
		memoryFaults:  counter(t, "memory_manager_pinning_errors_total", "Containers that asked for memory of certain NUMA nodes and could not have it."),
		placed:        counter(t, "topology_manager_admission_requests_total", "Pods whose parts of the machine had to be aligned."),
		placeFaults:   counter(t, "topology_manager_admission_errors_total", "Pods whose parts of the machine could not be aligned."),
		placeMillis:   histogram(t, "kubelet_topology_manager_admission_duration_ms", "Milliseconds to find a pod's parts of the machine.", prometheus.ExponentialBuckets(.05, 2, 15)),
		aligned:       counters(t, "container_aligned_compute_resources_count", "Containers, or pods, that got parts which are aligned.", "scope", "boundary"),
		misaligned:    counters(t, "container_aligned_compute_resources_failure_count", "Containers, or pods, for which no aligned parts were found.", "scope", "boundary"),
		plugins:       counters(t, "device_plugin_registration_total", "Cumulative number of device plugin registrations. Broken down by resource name.", "resource_name"),
		deviceSeconds: histograms(t, "kubelet_device_plugin_alloc_duration_seconds", "Seconds that device plugins took to give devices, by resource.", prometheus.DefBuckets, "resource_name"),
		claimSeconds:  histograms(t, "dra_operations_duration_seconds", "Seconds to prepare, or take back, all ResourceClaims of a pod.", claims, "operation_name", "is_error"),
		driverSeconds: histograms(t, "dra_grpc_operations_duration_seconds", "Seconds of calls to DRA drivers.", claims, "driver_name", "method_name", "grpc_status_code"),
		askedAll:      counters(t, "pod_resources_endpoint_requests_total", "Questions at the pod-resources socket, by version.", "server_api_version"),
		asked:         map[string]*prometheus.CounterVec{}, askFaults: map[string]*prometheus.CounterVec{},
		podsAskedAll: counters(t, "pod_requests_total", "Questions at the socket of the pods API, by version and by what came of them.", "server_api_version", "status_code"),
		podsAsked:    map[string]*prometheus.CounterVec{},
		watchDrops:   counter(t, "pod_watch_events_dropped_total", "Events that a watcher of the pods API was too slow for."),
	}
	for _, method := range []string{ListPods, GetPod, WatchPods} {
		p.podsAsked[method] = counters(t, "pod_requests_"+method+"_total", "Questions of this kind at the socket of the pods API.", "server_api_version", "status_code")
	}
	for _, method := range []string{ListResources, GetResources, GetAllAllocable} {
		p.asked[method] = counters(t, "pod_resources_endpoint_requests_"+method, "Questions of this kind at the pod-resources socket, by version.", "server_api_version")
		p.askFaults[method] = counters(t, "pod_resources_endpoint_errors_"+method, "Questions of this kind at the pod-resources socket that were not answered, by version.", "server_api_version")
	}
	return p
}

// fault adds one to errors when there is one.
func fault(errors prometheus.Counter, err error) {
	if err != nil {
		errors.Inc()
	}
}

// CPUsAsked counts a container that asks for CPUs of its own, and what came of it.
func (t *Tally) CPUsAsked(err error) {
	if t == nil {
		return
	}
	t.parts.cpus.Inc()
	fault(t.parts.cpuFaults, err)
}

// MemoryAsked counts a container that asks for memory of certain NUMA nodes.
func (t *Tally) MemoryAsked(err error) {
	if t == nil {
		return
	}
	t.parts.memory.Inc()
	fault(t.parts.memoryFaults, err)
}

// Placed counts a pod for whose parts of the machine a place was looked for.
func (t *Tally) Placed(took time.Duration, err error) {
	if t == nil {
		return
	}
	t.parts.placed.Inc()
	t.parts.placeMillis.Observe(float64(took) / float64(time.Millisecond))
	fault(t.parts.placeFaults, err)
}

// Aligned counts parts that lie within a boundary, or had to and could not.
func (t *Tally) Aligned(scope, boundary string, err error) {
	if t == nil {
		return
	}
	if err != nil {
		t.parts.misaligned.WithLabelValues(scope, boundary).Inc()
		return
	}
	t.parts.aligned.WithLabelValues(scope, boundary).Inc()
}

// PluginRegistered counts a device plugin that offers a resource.
func (t *Tally) PluginRegistered(resource string) {
	if t == nil {
		return
	}
	t.parts.plugins.WithLabelValues(resource).Inc()
}

// DevicesGiven counts an answer of a device plugin's.
func (t *Tally) DevicesGiven(resource string, took time.Duration) {
	if t == nil {
		return
	}
	t.parts.deviceSeconds.WithLabelValues(resource).Observe(took.Seconds())
}

// ClaimsHandled counts a pod whose claims were prepared, or taken back.
func (t *Tally) ClaimsHandled(operation string, took time.Duration, err error) {
	if t == nil {
		return
	}
	t.parts.claimSeconds.WithLabelValues(operation, strconv.FormatBool(err != nil)).Observe(took.Seconds())
}

// DriverCalled counts a call of a DRA driver's method.
func (t *Tally) DriverCalled(driver, method string, took time.Duration, err error) {
	if t == nil {
		return
	}
	t.parts.driverSeconds.WithLabelValues(driver, method, status.Code(err).String()).Observe(took.Seconds())
}

// ResourcesAsked counts a question at the pod-resources socket.
func (t *Tally) ResourcesAsked(method string, err error) {
	if t == nil {
		return
	}
	const version = "v1"
	t.parts.askedAll.WithLabelValues(version).Inc()
	t.parts.asked[method].WithLabelValues(version).Inc()
	if err != nil {
		t.parts.askFaults[method].WithLabelValues(version).Inc()
	}
}

// ResourcesAskedBefore counts a question in the first version of the API at that socket.
func (t *Tally) ResourcesAskedBefore() {
	if t != nil {
		t.parts.askedAll.WithLabelValues("v1alpha1").Inc()
	}
}

// PodsAsked counts a question at the socket of the pods API, and what came of it.
func (t *Tally) PodsAsked(method string, err error) {
	if t == nil {
		return
	}
	const version = "v1alpha1"
	code := status.Code(err).String()
	t.parts.podsAskedAll.WithLabelValues(version, code).Inc()
	t.parts.podsAsked[method].WithLabelValues(version, code).Inc()
}

// WatchDropped counts an event that a watcher of the pods API did not get.
func (t *Tally) WatchDropped() {
	if t != nil {
		t.parts.watchDrops.Inc()
	}
}
