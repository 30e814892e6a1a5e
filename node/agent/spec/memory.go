package spec

import (
	"math"
	"os"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// MemoryQoS is what the kernel is told of memory beside limits (KEP-2570, cgroup v2). The
// zero value tells it nothing.
type MemoryQoS struct {
	// Throttle is how far on the way from a request to a limit processes are slowed down
	// so that they give memory back (memory.high), 0 for never.
	Throttle float64
	// Reserve keeps what is requested: from all others (memory.min) for guaranteed pods,
	// as long as there is other memory (memory.low) for burstable ones.
	Reserve bool
}

// The files of cgroup v2.
const (
	memoryMin  = "memory.min"
	memoryLow  = "memory.low"
	memoryHigh = "memory.high"
	memorySwap = "memory.swap.max"
)

// container adds what holds for a container.
func (q MemoryQoS) container(unified map[string]string, pod *corev1.Pod, c *corev1.Container, allocatable int64) {
	request, limit := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	q.reserve(unified, pod, request)
	switch {
	case request == limit && request != 0:
		return
	case limit == 0 && resource.IsPodLevelResourcesSet(pod) && !pod.Spec.Resources.Limits.Memory().IsZero():
		return // the pod's own cgroup has it
	case limit == 0:
		limit = allocatable
	}
	q.throttle(unified, request, limit)
}

// whole adds what holds for a pod's own cgroup. It is throttled only where its spec has
// resources of its own.
func (q MemoryQoS) whole(unified map[string]string, pod *corev1.Pod, requests, limits corev1.ResourceList) {
	request, limit := requests.Memory().Value(), limits.Memory().Value()
	q.reserve(unified, pod, request)
	if resource.IsPodLevelResourcesSet(pod) && AllLimited(pod, corev1.ResourceMemory) && (request != limit || request == 0) {
		q.throttle(unified, request, limit)
	}
}

func (q MemoryQoS) reserve(unified map[string]string, pod *corev1.Pod, request int64) {
	if !q.Reserve || request == 0 {
		return
	}
	file := memoryLow
	if QoS(pod) == corev1.PodQOSGuaranteed {
		file = memoryMin
	}
	unified[file] = strconv.FormatInt(request, 10)
}

func (q MemoryQoS) throttle(unified map[string]string, request, limit int64) {
	if q.Throttle == 0 || limit == 0 {
		return
	}
	page := int64(os.Getpagesize())
	high := int64(math.Floor(float64(request)+float64(limit-request)*q.Throttle)/float64(page)) * page
	if high > request {
		unified[memoryHigh] = strconv.FormatInt(high, 10)
	}
}

// ReservedMemory is the memory that a pod requests, where its class has some reserved
// for it: 0 for best-effort pods.
func ReservedMemory(pod *corev1.Pod) (class corev1.PodQOSClass, bytes int64) {
	class = QoS(pod)
	if class == corev1.PodQOSBestEffort {
		return class, 0
	}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	return class, requests.Memory().Value()
}
