package agent

import (
	"crypto/tls"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// figures are the numbers of /metrics that say how things are now. They are worked out
// when somebody asks: nothing is kept up to date for them. It is a
// prometheus.Collector.
type figures struct{ a *Agent }

func figure(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// The figures, by upstream's names and labels.
var (
	runningPods       = figure("kubelet_running_pods", "Number of pods that have a running pod sandbox")
	runningContainers = figure("kubelet_running_containers", "Number of containers currently running", "container_state")
	desiredPods       = figure("kubelet_desired_pods", "Pods that the node is to run; static is true of those of its own manifests.", "static")
	activePods        = figure("kubelet_active_pods", "Pods that have room on the node; static is true of those of its own manifests.", "static")
	mirrorPods        = figure("kubelet_mirror_pods", "Pods of the API that show what is of the node's own manifests.")
	workingPods       = figure("kubelet_working_pods", "Pods that the agent is at work on, by where in their lives they are, by who wants them, and whether they are of the node's own manifests.", "lifecycle", "config", "static")
	ephemerals        = figure("kubelet_managed_ephemeral_containers", "Ephemeral containers of the node's pods.")
	pendingResizes    = figure("kubelet_pod_pending_resizes", "Resizes of pods that have not begun, by why and by the pod's priority.", "reason", "priority_bucket")
	currentResizes    = figure("kubelet_pod_in_progress_resizes", "Resizes of pods that have begun.")
	totalVolumes      = figure("volume_manager_total_volumes", "Number of volumes in Volume Manager", "plugin_name", "state")
	totalPlugins      = figure("plugin_manager_total_plugins", "Plugins that have registered by their sockets, and sockets that there are.", "socket_path", "state")
	sharedCPUs        = figure("kubelet_cpu_manager_shared_pool_size_millicores", "CPUs of all that have none of their own, in thousandths.")
	ownCPUs           = figure("kubelet_cpu_manager_exclusive_cpu_allocation_count", "CPUs that are one container's alone.")
	nodeCPUs          = figure("kubelet_cpu_manager_allocation_per_numa", "CPUs that are one container's alone, by NUMA node.", "numa_node")
	claimsInUse       = figure("dra_resource_claims_in_use", "ResourceClaims that pods of the node use, by driver; <any> counts each once.", "driver_name")
	certificateStates = figure("kubelet_podcertificate_states", "Certificates of pods, by signer and by how they are.", "signer_name", "state")
	servingLeft       = figure("kubelet_certificate_manager_server_ttl_seconds", "Seconds until the serving certificate ends; less than 0 when it has, +Inf when there is none.")
)

// Describe implements prometheus.Collector.
func (figures) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		runningPods, runningContainers, desiredPods, activePods, mirrorPods, workingPods, ephemerals, pendingResizes, currentResizes, totalVolumes,
		totalPlugins, sharedCPUs, ownCPUs, nodeCPUs, claimsInUse, certificateStates, servingLeft,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (f figures) Collect(to chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, value int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	f.pods(tell)
	f.parts(tell)
	to <- prometheus.MustNewConstMetric(servingLeft, prometheus.GaugeValue, secondsLeft(f.a.cfg.TLS, time.Now()))
}

// teller tells of one number.
type teller func(d *prometheus.Desc, value int, labels ...string)

// look is a pod as others may see it.
type look struct {
	pod              *corev1.Pod
	admitted, static bool
	state            shown
}

// shown is what the owner of a pod lets others see for figures.
type shown struct {
	// running is whether its sandbox does.
	running bool
	// containers are counted by the engine's states.
	containers [actual.States]int
	stage      stage
	gone       bool
	// unknown: the engine alone knew of it.
	unknown bool
	// pending is why a resize has not begun, "" for none; begun: one is under way.
	pending string
	begun   bool
}

func (f figures) looks() []look {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	var list []look
	for _, m := range f.a.machines {
		m.mu.Lock()
		list = append(list, look{m.mail.pod, m.holds != nil, m.static, m.shows})
		m.mu.Unlock()
	}
	return list
}

func (f figures) pods(tell teller) {
	var boxes, extra, begun, mirrors int
	var containers [actual.States]int
	desired, active := map[bool]int{}, map[bool]int{}
	working, pending := map[[3]string]int{}, map[[2]string]int{}
	for _, l := range f.looks() {
		boxes += one(l.state.running)
		for i, n := range l.state.containers {
			containers[i] += n
		}
		extra += len(l.pod.Spec.EphemeralContainers)
		desired[l.static] += one(!l.state.gone)
		active[l.static] += one(l.admitted)
		mirrors += one(l.static && l.admitted)
		begun += one(l.state.begun)
		if l.state.pending != "" {
			pending[[2]string{l.state.pending, tally.Priority(l.pod)}]++
		}
		working[l.place()]++
	}
	tell(runningPods, boxes)
	for i, n := range containers {
		if n > 0 || i == int(actual.Running) {
			tell(runningContainers, n, actual.State(i).String())
		}
	}
	for static, label := range map[bool]string{false: "", true: "true"} {
		tell(desiredPods, desired[static], label)
		tell(activePods, active[static], label)
	}
	for _, at := range allPlaces() {
		tell(workingPods, working[at], at[0], at[1], at[2])
	}
	tell(mirrorPods, mirrors)
	tell(ephemerals, extra)
	tell(currentResizes, begun)
	for at, n := range pending {
		tell(pendingResizes, n, at[0], at[1])
	}
}

// place is where a pod is in its life, who wants it, and whether it is static, in
// upstream's words.
func (l look) place() [3]string {
	at := [3]string{"sync", "desired", ""}
	switch {
	case l.state.stage == stopping:
		at[0] = "terminating"
	case l.state.stage > stopping:
		at[0] = "terminated"
	}
	switch {
	case l.state.unknown:
		return [3]string{at[0], "runtime_only", "unknown"}
	case l.state.gone:
		at[1] = "orphan"
	}
	if l.static {
		at[2] = "true"
	}
	return at
}

// allPlaces are all places that there can be.
func allPlaces() (list [][3]string) {
	for _, lifecycle := range []string{"sync", "terminating", "terminated"} {
		for _, at := range [][2]string{{"desired", ""}, {"desired", "true"}, {"orphan", ""}, {"orphan", "true"}, {"runtime_only", "unknown"}} {
			list = append(list, [3]string{lifecycle, at[0], at[1]})
		}
	}
	return list
}

func (f figures) parts(tell teller) {
	wanted, there := f.a.volumes.Held()
	for plugin, n := range wanted {
		tell(totalVolumes, n, named(plugin), "desired_state_of_world")
		if there[plugin] > 0 {
			tell(totalVolumes, there[plugin], named(plugin), "actual_state_of_world")
		}
	}
	for path, taken := range f.a.places.sockets.List() {
		tell(totalPlugins, 1, path, "desired_state_of_world")
		if taken {
			tell(totalPlugins, 1, path, "actual_state_of_world")
		}
	}
	if cpus := f.a.places.cpus; cpus != nil {
		tell(sharedCPUs, cpus.Shared().Size()*1000)
		all, byNode := cpus.Given()
		tell(ownCPUs, all)
		for node, n := range byNode {
			tell(nodeCPUs, n, node)
		}
	}
	byDriver, all := f.a.places.claims.InUse()
	tell(claimsInUse, all, "<any>")
	for driver, n := range byDriver {
		tell(claimsInUse, n, driver)
	}
	for at, n := range f.a.certs.states(time.Now()) {
		tell(certificateStates, n, at.signer, at.state)
	}
}

// named is a plugin's name, or upstream's word for none.
func named(plugin string) string {
	if plugin == "" {
		return "N/A"
	}
	return plugin
}

// secondsLeft is how long the certificate is good that others are shown.
func secondsLeft(c *tls.Config, now time.Time) float64 {
	if c == nil {
		return math.Inf(1)
	}
	var leaf *tls.Certificate
	switch {
	case c.GetCertificate != nil:
		leaf, _ = c.GetCertificate(&tls.ClientHelloInfo{}) // who has none can't be asked at all
	case len(c.Certificates) > 0:
		leaf = &c.Certificates[0]
	}
	if leaf == nil || leaf.Leaf == nil {
		return math.Inf(1)
	}
	return math.Trunc(leaf.Leaf.NotAfter.Sub(now).Seconds())
}

// show lets others see how the pod is.
func (m *machine) show() {
	s := shown{stage: m.stage, gone: m.gone, unknown: m.unknown, running: m.now.Ready() != nil, begun: m.resizing != 0}
	if m.noRoom != nil {
		s.pending = map[string]string{corev1.PodReasonDeferred: "deferred", corev1.PodReasonInfeasible: "infeasible"}[m.noRoom.Reason]
	}
	for i := range m.now.Containers {
		if at := int(m.now.Containers[i].State); at < len(s.containers) {
			s.containers[at]++
		}
	}
	m.mu.Lock()
	m.shows = s
	m.mu.Unlock()
}
