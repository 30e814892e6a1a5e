package tally

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// What happens is counted under the names that dashboards know, once.
func TestTally(t *testing.T) {
	c := New("n1")
	c.Operation("run_podsandbox", time.Second, nil)
	c.Operation("run_podsandbox", time.Second, errors.New("no"))
	c.PodStarted(Box{Took: time.Second})
	c.PodStarted(Box{Handler: "kata", Users: true, Took: time.Second, Err: errors.New("no")})
	pod := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i"}}, Containers: []corev1.Container{{Name: "c"}}}}
	c.ContainerStarted(KindOf(pod, "i"), "")
	c.ContainerStarted(KindOf(pod, "c"), "RunContainerError")
	c.PodRuns(2 * time.Second)
	c.Evicted("memory.available", time.Now())
	status := func(code int32, ended bool) *corev1.PodStatus {
		s := corev1.ContainerStatus{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
		if ended {
			s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error"}}
		}
		return &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{s}}
	}
	c.Status(&corev1.PodStatus{}, status(0, false))
	c.Status(status(0, false), status(139, true))
	c.Status(status(139, true), status(139, true)) // told again
	want := []string{
		`kubelet_evictions{eviction_signal="memory.available"} 1`,
		`kubelet_node_name{node="n1"} 1`,
		`kubelet_pod_start_duration_seconds{} 1 in 2 s`,
		`kubelet_run_podsandbox_duration_seconds{runtime_handler=""} 1 in 1 s`,
		`kubelet_run_podsandbox_duration_seconds{runtime_handler="kata"} 1 in 1 s`,
		`kubelet_run_podsandbox_errors_total{runtime_handler="kata"} 1`,
		`kubelet_runtime_operations_duration_seconds{operation_type="run_podsandbox"} 2 in 2 s`,
		`kubelet_runtime_operations_errors_total{operation_type="run_podsandbox"} 1`,
		`kubelet_runtime_operations_total{operation_type="run_podsandbox"} 2`,
		`kubelet_started_containers_errors_total{code="RunContainerError",container_type="container"} 1`,
		`kubelet_started_containers_total{container_type="container"} 1`,
		`kubelet_started_containers_total{container_type="init_container"} 1`,
		`kubelet_started_pods_errors_total{} 1`,
		`kubelet_started_pods_total{} 2`,
		`kubelet_started_user_namespaced_pods_errors_total{} 1`,
		`kubelet_started_user_namespaced_pods_total{} 1`,
		`kubelet_terminated_containers_total{container_type="container",exit_code="139",reason="Error"} 1`,
	}
	got := slices.DeleteFunc(gathered(t, c), func(line string) bool {
		return strings.HasSuffix(line, "} 0") || strings.HasSuffix(line, " 0 in 0 s") || strings.HasPrefix(line, "kubelet_eviction_stats_age") // how long that took
	})
	if !slices.Equal(got, want) {
		t.Errorf("counted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func gathered(t *testing.T, c prometheus.Collector) (lines []string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			value := fmt.Sprint(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			if h := m.GetHistogram(); h != nil {
				value = fmt.Sprintf("%d in %g s", h.GetSampleCount(), h.GetSampleSum())
			}
			lines = append(lines, fmt.Sprintf("%s{%s} %s", f.GetName(), strings.Join(pairs, ","), value))
		}
	}
	return lines
}
