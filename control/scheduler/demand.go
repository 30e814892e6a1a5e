package scheduler

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// DemandPath is where upstream's scheduler serves what pods ask for.
const DemandPath = "/metrics/resources"

// Demand serves kube_pod_resource_request and kube_pod_resource_limit of all pods that
// have not ended, as upstream's scheduler does; 503 where no scheduler runs. It is a
// page of its own, for it grows with the pods.
func (m *Metrics) Demand() http.Handler {
	labels := []string{"namespace", "pod", "node", "scheduler", "priority", "resource", "unit"}
	const broken = ", broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any."
	d := &demand{metrics: m,
		requests: prometheus.NewDesc("kube_pod_resource_request", "Resources requested by workloads on the cluster"+broken, labels, nil),
		limits:   prometheus.NewDesc("kube_pod_resource_limit", "Resources limit for workloads on the cluster"+broken, labels, nil)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(d)
	page := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.running.Load() == nil {
			http.Error(w, "no scheduler runs here", http.StatusServiceUnavailable)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// demand is a prometheus.Collector.
type demand struct {
	metrics          *Metrics
	requests, limits *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (d *demand) Describe(c chan<- *prometheus.Desc) { c <- d.requests; c <- d.limits }

// Collect implements prometheus.Collector.
func (d *demand) Collect(c chan<- prometheus.Metric) {
	s := d.metrics.running.Load()
	if s == nil {
		return
	}
	for _, pod := range s.pods.List() {
		if pod.Spec.NodeName != "" && terminal(pod) {
			continue
		}
		tell(c, d.requests, pod, resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))
		tell(c, d.limits, pod, resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{}))
	}
}

func tell(c chan<- prometheus.Metric, d *prometheus.Desc, pod *corev1.Pod, all corev1.ResourceList) {
	level := ""
	if p := pod.Spec.Priority; p != nil {
		level = strconv.Itoa(int(*p))
	}
	for name, q := range all {
		if !q.IsZero() {
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, q.AsApproximateFloat64(),
				pod.Namespace, pod.Name, pod.Spec.NodeName, pod.Spec.SchedulerName, level, string(name), unit(name))
		}
	}
}

// unit is what a resource is measured in; "" is not known.
func unit(name corev1.ResourceName) string {
	switch {
	case name == corev1.ResourceCPU:
		return "cores"
	case name == corev1.ResourceMemory, name == corev1.ResourceStorage, name == corev1.ResourceEphemeralStorage,
		strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
		return "bytes"
	case strings.HasPrefix(string(name), corev1.ResourceAttachableVolumesPrefix):
		return "integer"
	}
	return ""
}
