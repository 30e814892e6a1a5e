package apiserver

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// sizeWait bounds the question to the store how large it is.
const sizeWait = time.Second

// versionPlaces is how many digits of a revision fit into a metric: upstream cuts
// the rest off.
const versionPlaces = 1_000_000_000_000_000

// The metrics that are looked up when somebody asks.
var (
	longDesc = desc("apiserver_longrunning_requests", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
		"verb", "group", "version", "resource", "subresource", "scope", "component")
	inflightDesc   = desc("apiserver_current_inflight_requests", "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.", "request_kind")
	objectsDesc    = desc("apiserver_resource_objects", "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.", "group", "resource")
	oldObjectsDesc = desc("apiserver_storage_objects", "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.", "resource")
	bytesDesc      = desc("apiserver_resource_size_estimate_bytes", "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.", "group", "resource")
	sizeDesc       = desc("apiserver_storage_size_bytes", "Size of the storage database file physically allocated in bytes.", "storage_cluster_id")
	receivedDesc   = desc("apiserver_storage_events_received_total", "Number of etcd events received split by kind.", "group", "resource")
	cachedDesc     = desc("apiserver_watch_cache_events_received_total", "Counter of events received in watch cache broken by resource type.", "group", "resource")
	dispatchedDesc = desc("apiserver_watch_cache_events_dispatched_total", "Counter of events dispatched in watch cache broken by resource type.", "group", "resource")
	versionDesc    = desc("apiserver_watch_cache_resource_version", "Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.", "group", "resource")
	capacityDesc   = desc("watch_cache_capacity", "Total capacity of watch cache broken by resource type.", "group", "resource")
	buildDesc      = desc("kubernetes_build_info", "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
		"major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform")
	featureDesc = desc("kubernetes_feature_enabled", "This metric records the data about the stage and enablement of a k8s feature.", "name", "stage")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// gathering sends what was found.
type gathering chan<- prometheus.Metric

func (c gathering) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c gathering) counter(d *prometheus.Desc, v float64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// gather looks up what is true now.
func (m *metrics) gather(to chan<- prometheus.Metric) {
	c := gathering(to)
	commit, state, date := built()
	c.gauge(buildDesc, 1, major, minor, gitVersion, commit, state, date, runtime.Version(), runtime.Compiler, runtime.GOOS+"/"+runtime.GOARCH)
	for _, f := range features {
		c.gauge(featureDesc, f.on, f.name, f.stage)
	}
	m.gatherRequests(c)
	if m.server == nil {
		return
	}
	told := map[[2]string]bool{}
	for _, k := range m.server.resources.Kinds() {
		name := [2]string{k.GVK.Group, k.Resource}
		if k.View == nil && k.Storage != "" && !told[name] {
			told[name] = m.gatherKind(c, k)
		}
	}
	sized, ok := m.server.cfg.Store.(*timedStore).Store.(store.Sized)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sizeWait)
	defer cancel()
	if bytes, err := sized.Size(ctx); err == nil {
		c.gauge(sizeDesc, float64(bytes), "etcd-0")
	}
}

func (m *metrics) gatherRequests(c gathering) {
	c.gauge(inflightDesc, float64(m.reading.look()), "readOnly")
	c.gauge(inflightDesc, float64(m.writing.look()), "mutating")
	sums := map[seriesKey]int{}
	m.mu.RLock()
	for k, n := range m.long {
		k.dryRun = ""
		sums[k] += n
	}
	m.mu.RUnlock()
	for k, n := range sums {
		c.gauge(longDesc, float64(n), k.labels()...)
	}
}

// gatherKind tells of a kind's objects, if somebody has listed it yet.
func (m *metrics) gatherKind(c gathering, k *kinds.Kind) bool {
	n, each, ok := m.server.resources.Stored(k.GVR())
	if !ok {
		return false
	}
	group, resource := k.GVK.Group, k.Resource
	c.gauge(objectsDesc, float64(n), group, resource)
	c.gauge(oldObjectsDesc, float64(n), k.GVR().GroupResource().String())
	c.gauge(bytesDesc, float64(n*each), group, resource)
	if seen, ok := m.server.resources.Mirrored(k.GVR()); ok {
		c.counter(receivedDesc, float64(seen.Events), group, resource)
		c.counter(cachedDesc, float64(seen.Events), group, resource)
		c.counter(dispatchedDesc, float64(seen.Events), group, resource)
		c.gauge(versionDesc, float64(seen.Revision%versionPlaces), group, resource)
		c.gauge(capacityDesc, float64(seen.Capacity), group, resource)
	}
	return true
}

// healthy notes what one check of a health page found.
func (m *metrics) healthy(page, check string, err error) {
	status, well := "success", 1.0
	if err != nil {
		status, well = "error", 0
	}
	m.health.WithLabelValues(check, page).Set(well)
	m.healthChecks.WithLabelValues(check, page, status).Inc()
}

// feature is one of upstream's feature gates and its state here.
type feature struct {
	name, stage string
	on          float64
}

// features are those of upstream's gates of v1.37 that can be told from outside and
// that are not settled yet: what this server does where they are on, and off.
var features = []feature{
	{"APIResponseCompression", "BETA", 1},
	{"APIServerIdentity", "BETA", 1},
	{"AllowParsingUserUIDFromCertAuth", "BETA", 1},
	{"CBORServingAndStorage", "ALPHA", 1},
	{"ConstrainedImpersonation", "BETA", 1},
	{"CoordinatedLeaderElection", "BETA", 0},
	{"MutatingAdmissionPolicy", "", 1},
	{"RemoteRequestHeaderUID", "BETA", 1},
	{"SizeBasedListCostEstimate", "BETA", 1},
	{"StructuredAuthenticationConfigurationEgressSelector", "BETA", 0},
	{"UnauthenticatedHTTP2DOSMitigation", "BETA", 1},
	{"WatchList", "BETA", 1},
}
