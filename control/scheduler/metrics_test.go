package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// upstreamMetrics is what v1.37's scheduler promises to keep, stable and beta: NAME
// LABELS [BUCKETS], and why, where we have none.
const upstreamMetrics = `
scheduler_framework_extension_point_duration_seconds extension_point,profile,status 0.0001,0.0002,0.0004,0.0008,0.0016,0.0032,0.0064,0.0128,0.0256,0.0512,0.1024,0.2048
scheduler_goroutines operation
scheduler_pending_pods queue
scheduler_permit_wait_duration_seconds: no plugin makes pods wait
scheduler_plugin_evaluation_total: filters are compiled for each class of pods, and are not asked one by one
scheduler_plugin_execution_duration_seconds: filters are compiled for each class of pods, and are not asked one by one
scheduler_pod_scheduling_attempts - 1,2,4,8,16
scheduler_pod_scheduling_sli_duration_seconds attempts 0.01,0.02,0.04,0.08,0.16,0.32,0.64,1.28,2.56,5.12,10.24,20.48,40.96,81.92,163.84,327.68,655.36,1310.72,2621.44,5242.88
scheduler_preemption_attempts_total -
scheduler_preemption_victims - 1,2,4,8,16,32,64
scheduler_queue_incoming_pods_total event,queue
scheduler_schedule_attempts_total profile,result
scheduler_scheduling_algorithm_duration_seconds - 0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384
scheduler_scheduling_attempt_duration_seconds profile,result 0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384
scheduler_unschedulable_pods plugin,profile
`

// Names, labels and buckets are upstream's.
func TestMetricsAgainstUpstream(t *testing.T) {
	m := NewMetrics()
	pod, o := &corev1.Pod{}, &outcome{Decision: Decision{At: time.Now(), Node: "n"}}
	m.came()(activeQueue, podAdded)
	m.decided(pod, o)
	m.preempted(&preemption{})
	m.madeRoom(pod, true, time.Now())
	m.bound(pod, o, effort{attempts: 20, entered: time.Now()}, nil)
	m.bound(pod, o, effort{}, errors.New("no"))
	m.set(counts{refused: map[[2]string]int{{"a", "b"}: 1}})
	r := prometheus.NewRegistry()
	for _, one := range m.all() { // Collect asks a scheduler, and there is none
		r.MustRegister(one)
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, f := range all {
		one := f.GetMetric()[0]
		line := "-"
		if len(one.GetLabel()) > 0 {
			labels := []string{}
			for _, l := range one.GetLabel() {
				labels = append(labels, l.GetName())
			}
			line = strings.Join(labels, ",")
		}
		if h := one.GetHistogram(); h != nil {
			bounds := []string{}
			for _, b := range h.GetBucket() {
				bounds = append(bounds, fmt.Sprint(b.GetUpperBound()))
			}
			line += " " + strings.Join(bounds, ",")
		}
		have[f.GetName()] = line
	}
	for line := range strings.Lines(strings.TrimSpace(upstreamMetrics)) {
		line = strings.TrimSpace(line)
		if name, why, absent := strings.Cut(line, ": "); absent {
			if _, here := have[name]; here || why == "" {
				t.Errorf("%s: the list says that it is not here, because %q", name, why)
			}
			continue
		}
		if name, want, _ := strings.Cut(line, " "); have[name] != want {
			t.Errorf("%s has %q, upstream's %q", name, have[name], want)
		}
	}
}

// Every change has upstream's name.
func TestChangesHaveNames(t *testing.T) {
	for kind := NodeAdded; kind <= GroupChanged; kind <<= 1 {
		if (Change{Kind: kind}).event() == "" {
			t.Errorf("change %b has no name", kind)
		}
	}
	for want, c := range map[string]Change{
		"NodeUpdateNodeTaint":                 {Kind: NodeTaints},
		"AssignedPodDelete":                   {Kind: PodRemoved},
		"AssignedPodUpdatePodLabel":           {Kind: PodPlaced, Was: &corev1.Pod{}},
		"PersistentVolumeClaimAdd":            {Kind: ClaimChanged, New: 1},
		"storage.k8s.io/CSINodeUpdate":        {Kind: CSINodeChanged, New: 1, Old: 1},
		"resource.k8s.io/ResourceSliceDelete": {Kind: DeviceSliceChanged, Old: 1},
		"scheduling.k8s.io/PodGroupUpdate":    {Kind: GroupChanged},
	} {
		if got := c.event(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
