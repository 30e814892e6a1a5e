package tally

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func sized(name, request, limit string) corev1.Container {
	c := corev1.Container{Name: name}
	set := func(list *corev1.ResourceList, text string) {
		if text != "" {
			*list = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(text)}
		}
	}
	set(&c.Resources.Requests, request)
	set(&c.Resources.Limits, limit)
	return c
}

// Each change of a resource is counted by what became of it, and a wait by how it ended.
func TestResizes(t *testing.T) {
	c := New("n1")
	before := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{sized("a", "100m", ""), sized("b", "1", "1")}}}
	now := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{sized("a", "200m", "1"), sized("b", "500m", "")}}}
	if !c.ResizeAsked(before, now) || c.ResizeAsked(now, now) {
		t.Error("what is a resize, and what isn't")
	}
	priority := int32(7)
	now.Spec.Priority = &priority
	c.ResizeWaited(now, Accepted, "pod_terminated", 7*time.Second)
	c.ResizeWaited(now, Reverted, "", time.Second)
	var got []string
	for _, line := range gathered(t, c) {
		if strings.Contains(line, "resize") {
			got = append(got, line)
		}
	}
	want := []string{
		`kubelet_container_requested_resizes_total{operation="add",requirement="limits",resource="cpu"} 1`,
		`kubelet_container_requested_resizes_total{operation="decrease",requirement="requests",resource="cpu"} 1`,
		`kubelet_container_requested_resizes_total{operation="increase",requirement="requests",resource="cpu"} 1`,
		`kubelet_container_requested_resizes_total{operation="remove",requirement="limits",resource="cpu"} 1`,
		`kubelet_pod_deferred_accepted_resizes_total{retry_trigger="pod_terminated"} 1`,
		`kubelet_pod_deferred_resize_duration_seconds{priority_bucket="medium",resolution="accepted"} 1 in 7 s`,
		`kubelet_pod_deferred_resize_duration_seconds{priority_bucket="medium",resolution="reverted"} 1 in 1 s`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("counted\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The classes of images' sizes and of pods' priorities are upstream's.
func TestClasses(t *testing.T) {
	const mib = 1 << 20
	for bytes, want := range map[uint64]string{0: "N/A", 1: "0-10MB", 10 * mib: "0-10MB", 10*mib + 1: "10MB-100MB", 600 * mib: "500MB-1GB", 3 << 30: "1GB-5GB", 101 << 30: "GT100GB"} {
		if got := imageSize(bytes); got != want {
			t.Errorf("%d bytes are of %q, want %q", bytes, got, want)
		}
	}
	for priority, want := range map[int32]string{2_000_000_000: "system-critical", 100_000: "high", 1: "medium", 0: "normal", -999: "low", -1000: "very-low"} {
		if got := Priority(&corev1.Pod{Spec: corev1.PodSpec{Priority: &priority}}); got != want {
			t.Errorf("priority %d is %q, want %q", priority, got, want)
		}
	}
	for reason, want := range map[string]string{"OutOfcpu": "OutOfcpu", "OutOfexample.com/gpu": "OutOfExtendedResources", "Anything": "Other", "NodeShutdown": "NodeShutdown"} {
		c := New("n1")
		c.PodRefused(reason)
		if want := `kubelet_admission_rejections_total{reason="` + want + `"} 1`; !slices.Contains(gathered(t, c), want) {
			t.Errorf("%s: no %s", reason, want)
		}
	}
}
