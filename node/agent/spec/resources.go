package spec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How CPU is cut into cgroup terms; the kernel's and upstream's numbers.
const (
	cpuPeriod   = 100_000
	minQuota    = 1_000
	minShares   = 2
	maxShares   = 262_144
	milliPerCPU = 1_000
	sharesPer   = 1_024
)

// Priorities at the out-of-memory killer, as upstream has them.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
	// systemCritical is the lowest priority of system-critical pods; nodeCritical is
	// the class of those that a node can't do without.
	systemCritical = 2_000_000_000
	nodeCritical   = "system-node-critical"
)

// QoS is a pod's quality-of-service class, from its resources.
func QoS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, guaranteed := false, true
	check := func(r corev1.ResourceRequirements) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit := r.Limits[name]
			request, asked := r.Requests[name]
			if !asked {
				request = limit // which is what the API server makes of it
			}
			any = any || !request.IsZero() || !limit.IsZero()
			if limit.IsZero() || request.Cmp(limit) != 0 {
				guaranteed = false
			}
		}
	}
	if resource.IsPodLevelResourcesSet(pod) {
		check(*pod.Spec.Resources)
	} else {
		for i := range pod.Spec.InitContainers {
			check(pod.Spec.InitContainers[i].Resources)
		}
		for i := range pod.Spec.Containers {
			check(pod.Spec.Containers[i].Resources)
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// CgroupParent is the pod's cgroup, in cgroupfs style.
func CgroupParent(pod *corev1.Pod, node Node) string {
	leaf := "pod" + string(pod.UID)
	base := path.Join("/", node.CgroupRoot, "kubepods")
	switch QoS(pod) {
	case corev1.PodQOSBurstable:
		return path.Join(base, "burstable", leaf)
	case corev1.PodQOSBestEffort:
		return path.Join(base, "besteffort", leaf)
	}
	return path.Join(base, leaf)
}

// Shares is cpu.shares for so many thousandths of a CPU.
func Shares(milli int64) int64 {
	if milli == 0 {
		return minShares
	}
	return min(max(milli*sharesPer/milliPerCPU, minShares), maxShares)
}

// ContainerResources are one container's cgroup limits and OOM score. A limit that
// it has not is that of its whole pod, if there is one.
func ContainerResources(pod *corev1.Pod, c *corev1.Container, node Node) *rt.LinuxContainerResources {
	limit := Limit(pod.Spec.Resources, &c.Resources, corev1.ResourceCPU)
	memory := Limit(pod.Spec.Resources, &c.Resources, corev1.ResourceMemory)
	cpu, asked := c.Resources.Requests[corev1.ResourceCPU]
	if !asked {
		cpu = limit
	}
	r := &rt.LinuxContainerResources{
		CpuPeriod:          node.period(),
		CpuShares:          Shares(cpu.MilliValue()),
		CpuQuota:           node.quota(limit.MilliValue()),
		MemoryLimitInBytes: memory.Value(),
		OomScoreAdj:        OOMScore(pod, c, node.Memory),
		HugepageLimits:     hugePages(node, wholeLimits(pod), c.Resources.Limits),
	}
	// A container may not swap past its memory limit. One that has no limit can be told
	// of swap by the file alone.
	swap := node.swap(pod, c)
	r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
	if r.MemoryLimitInBytes > 0 {
		r.MemorySwapLimitInBytes += swap
	}
	r.Unified = map[string]string{}
	if node.BoundsSwap {
		r.Unified[memorySwap] = strconv.FormatInt(swap, 10)
	}
	if node.OOMGroup {
		r.Unified["memory.oom.group"] = "1"
	}
	node.MemoryQoS.container(r.Unified, pod, c, node.Allocatable.Memory().Value())
	return r
}

// swap is a container's part of the swap, by its part of the memory: only
// burstable pods that aren't critical get any, and of their containers those
// that may use more memory than they have requested.
func (n Node) swap(pod *corev1.Pod, c *corev1.Container) int64 {
	request, limit := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	if n.Swap == 0 || n.Memory == 0 || critical(pod) || QoS(pod) != corev1.PodQOSBurstable || request == 0 || request == limit {
		return 0
	}
	return int64(float64(request) / float64(n.Memory) * float64(n.Swap))
}

// PodResources are the limits of the pod's own cgroup: the sum of its
// containers', where each of them has one.
func PodResources(pod *corev1.Pod, node Node) *rt.LinuxContainerResources {
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	r := &rt.LinuxContainerResources{CpuPeriod: node.period(), CpuShares: Shares(requests.Cpu().MilliValue())}
	r.Unified = map[string]string{}
	if node.PidsLimit > 0 {
		r.Unified["pids.max"] = strconv.FormatInt(node.PidsLimit, 10)
	}
	node.MemoryQoS.whole(r.Unified, pod, requests, limits)
	if AllLimited(pod, corev1.ResourceCPU) {
		r.CpuQuota = node.quota(limits.Cpu().MilliValue())
	}
	if AllLimited(pod, corev1.ResourceMemory) {
		r.MemoryLimitInBytes = limits.Memory().Value()
	}
	r.HugepageLimits = hugePages(node, requests)
	return r
}

func wholeLimits(pod *corev1.Pod) corev1.ResourceList {
	if pod.Spec.Resources == nil {
		return nil
	}
	return pod.Spec.Resources.Limits
}

// BurstableRequest is the CPU that a pod requests, in thousandths, if it is burstable,
// else nothing.
func BurstableRequest(pod *corev1.Pod) int64 {
	if QoS(pod) != corev1.PodQOSBurstable {
		return 0
	}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	return requests.Cpu().MilliValue()
}

// AllLimited reports whether the pod has a limit of a resource: as a whole, or since each
// of its containers has one.
func AllLimited(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if q, ok := r.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			q := list[i].Resources.Limits[name]
			if q.IsZero() {
				return false
			}
		}
	}
	return true
}

func overhead(pod *corev1.Pod) *rt.LinuxContainerResources {
	if len(pod.Spec.Overhead) == 0 {
		return nil
	}
	return &rt.LinuxContainerResources{
		CpuPeriod: cpuPeriod, CpuShares: Shares(pod.Spec.Overhead.Cpu().MilliValue()),
		MemoryLimitInBytes: pod.Spec.Overhead.Memory().Value(),
	}
}

// critical says whether the cluster can't do without the pod: by its priority, or
// since it is a static one.
func critical(pod *corev1.Pod) bool {
	source, mirror := pod.Annotations["kubernetes.io/config.source"], pod.Annotations[corev1.MirrorPodAnnotationKey]
	return (source != "" && source != "api") || mirror != "" || (pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical)
}

// OOMScore is a container's oom_score_adj: -997 for guaranteed and node-critical
// pods, 1000 for best-effort ones, and between them the lower the more memory a
// container has requested, with its part of what the pod requests beyond that.
func OOMScore(pod *corev1.Pod, c *corev1.Container, memory int64) int64 {
	if critical(pod) && pod.Spec.PriorityClassName == nodeCritical {
		return oomGuaranteed
	}
	switch QoS(pod) {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memory <= 0 {
		return oomBestEffort - 1
	}
	request := c.Resources.Requests.Memory().Value()
	if Sidecar(c) {
		request = max(request, smallestRequest(pod))
	}
	score := 1000 - 1000*(request+spare(pod))/memory
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

func smallestRequest(pod *corev1.Pod) int64 {
	smallest := int64(-1)
	for i := range pod.Spec.Containers {
		r := pod.Spec.Containers[i].Resources.Requests.Memory().Value()
		if smallest == -1 || r < smallest {
			smallest = r
		}
	}
	return max(smallest, 0)
}

// Claimed reports whether a ResourceClaim, which the scheduler has made, stands for what
// a container requests of an extended resource: then it is not of the node's own
// (upstream's DRAExtendedResource).
func Claimed(pod *corev1.Pod, container string, name corev1.ResourceName) bool {
	s := pod.Status.ExtendedResourceClaimStatus
	return s != nil && slices.ContainsFunc(s.RequestMappings, func(m corev1.ContainerExtendedResourceRequest) bool {
		return m.ContainerName == container && m.ResourceName == string(name)
	})
}

// Extended says whether a resource is none of Kubernetes' own: a device, or what
// an administrator has made up. Its name has a domain that is not kubernetes.io.
func Extended(name corev1.ResourceName) bool {
	text := string(name)
	return strings.Contains(text, "/") && !strings.Contains(text, "kubernetes.io/") && !strings.HasPrefix(text, "requests.")
}
