// Package spec says in CRI words what a pod asks for in API words: the sandbox,
// the containers, their environment, security and resources. It decides and
// does nothing: whoever calls it talks to the engine.
package spec

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// Node is what a pod's specification depends on besides the pod.
type Node struct {
	Name string
	// IPs are the node's addresses, the primary one first.
	IPs []string
	// ClusterDNS and ClusterDomain go into pods' resolv.conf.
	ClusterDNS    []string
	ClusterDomain string
	// Resolver is the host's own resolv.conf.
	Resolver Resolver
	// Allocatable is what pods may use; Memory is the machine's, in bytes.
	Allocatable corev1.ResourceList
	Memory      int64
	// CgroupRoot is the cgroup under which "kubepods" lies, such as "/sampan".
	CgroupRoot string
	// Sysctls are those that pods get unless they say otherwise.
	Sysctls map[string]string
	// PidsLimit bounds the processes of one pod.
	PidsLimit int64
	// LogRoot holds a directory of container logs a pod; SeccompRoot holds
	// Localhost profiles.
	LogRoot, SeccompRoot string
	// SeccompUnconfined leaves containers that name no profile unfiltered.
	SeccompUnconfined bool
	// CFSPeriod is the period of CPU quotas in microseconds, 0 for the kernel's
	// 100 ms; with NoCFSQuota limits of CPU are not enforced.
	CFSPeriod  int64
	NoCFSQuota bool
	// Swap is how much swap burstable pods may use together, 0 for none; it needs
	// cgroup v2. OOMGroup has the kernel kill all of a container when it must
	// kill a part; it needs cgroup v2 too.
	Swap     int64
	OOMGroup bool
	// BoundsSwap says that the kernel bounds what a container swaps out, whether its
	// memory has a limit or not (memory.swap.max of cgroup v2).
	BoundsSwap bool
	// MemoryQoS is what the kernel is told of memory beside limits; it needs cgroup v2.
	MemoryQoS MemoryQoS
	// PageSizes are those of the huge pages that the machine has ("2MB").
	PageSizes []string
}

// period is the period of CPU quotas.
func (n Node) period() int64 {
	if n.CFSPeriod == 0 {
		return cpuPeriod
	}
	return n.CFSPeriod
}

// quota is what a container with that CPU limit may use in a period, 0 for
// everything.
func (n Node) quota(milli int64) int64 {
	if n.NoCFSQuota || milli == 0 {
		return 0
	}
	return max(milli*n.period()/milliPerCPU, minQuota)
}

// FullName is how messages name a pod, as upstream's do: name_namespace(uid).
func FullName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

// LogDirectory is where a pod's container logs are.
func (n Node) LogDirectory(pod *corev1.Pod) string {
	return filepath.Join(n.LogRoot, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// LogPath is a container's log relative to its pod's LogDirectory.
func LogPath(container string, attempt int32) string {
	return filepath.Join(container, strconv.Itoa(int(attempt))+".log")
}

// Hash tells whether a running container still is what the spec asks for. As
// upstream's it covers name and image: the other fields can't change in place.
func Hash(c *corev1.Container) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", c.Name, c.Image)
	return strconv.FormatUint(h.Sum64(), 16)
}

// Sidecar reports whether an init container runs beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Containers returns the pod's containers of all sorts, init containers first.
func Containers(pod *corev1.Pod) []*corev1.Container {
	var all []*corev1.Container
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		all = append(all, (*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return all
}

// Container finds a container of any sort by name, nil if there is none.
func Container(pod *corev1.Pod, name string) *corev1.Container {
	for _, c := range Containers(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// FieldPath is how an event names a container: spec.containers{web}.
func FieldPath(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return "spec.initContainers{" + name + "}"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return "spec.ephemeralContainers{" + name + "}"
		}
	}
	return "spec.containers{" + name + "}"
}

// Grace is the time a pod's containers have to stop, in seconds.
func Grace(pod *corev1.Pod) int64 {
	if pod.DeletionGracePeriodSeconds != nil {
		return *pod.DeletionGracePeriodSeconds
	}
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return DefaultGrace
}

// DefaultGrace is the API's default terminationGracePeriodSeconds.
const DefaultGrace = 30

func podLabels(pod *corev1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[actual.LabelPodName] = pod.Name
	labels[actual.LabelPodNamespace] = pod.Namespace
	labels[actual.LabelPodUID] = string(pod.UID)
	return labels
}
