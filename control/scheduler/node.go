package scheduler

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	podresource "k8s.io/component-helpers/resource"
)

// Resources are amounts in the scheduler's units: millicores, bytes, and whole
// numbers for everything else.
type Resources struct {
	MilliCPU, Memory, EphemeralStorage int64
	// Scalar are extended resources and huge pages.
	Scalar map[corev1.ResourceName]int64
}

// NewResources reads a list of quantities.
func NewResources(list corev1.ResourceList) Resources {
	var r Resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage = q.Value()
		case corev1.ResourcePods:
		default:
			if r.Scalar == nil {
				r.Scalar = map[corev1.ResourceName]int64{}
			}
			r.Scalar[name] = q.Value()
		}
	}
	return r
}

// Add adds o, times sign, to r.
func (r *Resources) Add(o Resources, sign int64) {
	r.MilliCPU += sign * o.MilliCPU
	r.Memory += sign * o.Memory
	r.EphemeralStorage += sign * o.EphemeralStorage
	for name, v := range o.Scalar {
		if r.Scalar == nil {
			r.Scalar = map[corev1.ResourceName]int64{}
		}
		r.Scalar[name] += sign * v
	}
}

// equal says whether two amounts are the same.
func (r *Resources) equal(o *Resources) bool {
	return r.MilliCPU == o.MilliCPU && r.Memory == o.Memory && r.EphemeralStorage == o.EphemeralStorage && maps.Equal(r.Scalar, o.Scalar)
}

// Requests are what a pod asks for, with its overhead (KEP-688), the greater of
// its init containers and its containers, as component-helpers computes it.
func Requests(pod *corev1.Pod) Resources {
	if plain(pod) {
		return sum(pod, 0, 0)
	}
	return NewResources(podresource.PodRequests(pod, onNode))
}

// What upstream assumes of a container that requests nothing, in scores only.
const (
	defaultMilliCPU = 100
	defaultMemory   = 200 << 20
)

// NonZeroRequests are Requests where a container without cpu or memory requests
// counts as a small one, so that scores spread such pods too. In a pod that requests
// something as a whole that is so only for what nobody in it requests.
func NonZeroRequests(pod *corev1.Pod) Resources {
	if plain(pod) {
		return sum(pod, defaultMilliCPU, defaultMemory)
	}
	small := smallRequests()
	if podresource.IsPodLevelRequestsSet(pod) {
		for name := range podresource.PodRequests(pod, onNode) {
			delete(small, name)
		}
	}
	opts := onNode
	opts.NonMissingContainerRequests = small
	return NewResources(podresource.PodRequests(pod, opts))
}

// ContainerRequests are what the containers of a pod without a node request, with its
// overhead, where one without cpu or memory requests counts as a small one.
func ContainerRequests(pod *corev1.Pod) Resources {
	if plain(pod) {
		return sum(pod, defaultMilliCPU, defaultMemory)
	}
	return NewResources(podresource.PodRequests(pod, podresource.PodResourcesOptions{
		SkipPodLevelResources: true, NonMissingContainerRequests: smallRequests(),
	}))
}

// onNode is how the requests of pods count that may be on a node.
var onNode = podresource.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}

func smallRequests() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: *milli(defaultMilliCPU), corev1.ResourceMemory: *bytes(defaultMemory)}
}

// plain pods ask for what their containers ask for, and nothing else: most do.
func plain(pod *corev1.Pod) bool {
	if len(pod.Spec.InitContainers) > 0 || len(pod.Spec.Overhead) > 0 || pod.Spec.Resources != nil ||
		pod.Status.Resources != nil || pod.Status.AllocatedResources != nil || len(pod.Status.NodeAllocatableResourceClaimStatuses) > 0 {
		return false
	}
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.Resources != nil || s.AllocatedResources != nil {
			return false
		}
	}
	return true
}

// sum adds up the requests of a plain pod's containers; those that do not name
// cpu or memory count with the given amounts.
func sum(pod *corev1.Pod, cpu, memory int64) (total Resources) {
	for i := range pod.Spec.Containers {
		r := NewResources(pod.Spec.Containers[i].Resources.Requests)
		if _, named := pod.Spec.Containers[i].Resources.Requests[corev1.ResourceCPU]; !named {
			r.MilliCPU = cpu
		}
		if _, named := pod.Spec.Containers[i].Resources.Requests[corev1.ResourceMemory]; !named {
			r.Memory = memory
		}
		total.Add(r, 1)
	}
	return total
}

// Pod is a pod on a node with what the filters ask of it again and again.
type Pod struct {
	*corev1.Pod
	Requests, NonZero Resources
	node              *Node
	group             *group
	held              *holding
	// ports and key are PodHostPorts and the cluster's groupKey of the pod.
	ports []HostPort
	key   string
}

func newPod(pod *corev1.Pod, key string) *Pod {
	return &Pod{Pod: pod, Requests: Requests(pod), NonZero: NonZeroRequests(pod), ports: PodHostPorts(pod), key: key}
}

// Node is a node with the pods that are, or are about to be, on it. Plugins only
// read it.
type Node struct {
	*corev1.Node
	Allocatable Resources
	MaxPods     int64
	Pods        map[types.UID]*Pod
	// Requested and NonZero add up what the pods ask for.
	Requested, NonZero Resources
	// HostPorts counts the pods' claims on the node's ports.
	HostPorts map[HostPort]int
	// Images are the sizes in bytes of the images that the node has, by name.
	Images map[string]int64
	// host is the node's name, also when there is no object.
	host string
	// slot numbers the node among those that exist, densely; another node may
	// have it later.
	slot int
	// object and state change when the object, and when it or its pods do. No
	// two states of any nodes have the same.
	object, state uint64
	// renewed changes when a pod is another object, though nothing follows for places.
	renewed uint64
}

// HostPort is a port of the node itself.
type HostPort struct {
	IP       string
	Protocol corev1.Protocol
	Port     int32
}

// NewNode makes a node without pods, for those who look at one by itself.
func NewNode(obj *corev1.Node) *Node {
	n := &Node{Pods: map[types.UID]*Pod{}, HostPorts: map[HostPort]int{}}
	n.set(obj)
	return n
}

// set takes over the object; the pods stay.
func (n *Node) set(obj *corev1.Node) {
	n.Node = obj
	n.Images = map[string]int64{}
	if obj == nil {
		return
	}
	n.Allocatable = NewResources(obj.Status.Allocatable)
	n.MaxPods = obj.Status.Allocatable.Pods().Value()
	for _, img := range obj.Status.Images {
		for _, name := range img.Names {
			n.Images[familiar(name)] = img.SizeBytes
		}
	}
}

// familiar is an image's name as pods write it, without the default registry.
func familiar(name string) string {
	name = strings.TrimPrefix(name, "docker.io/")
	return strings.TrimPrefix(name, "library/")
}

// count adds what a pod asks for, times sign.
func (n *Node) count(pod *Pod, sign int64) {
	n.Requested.Add(pod.Requests, sign)
	n.NonZero.Add(pod.NonZero, sign)
	for _, port := range pod.ports {
		if n.HostPorts[port] += int(sign); n.HostPorts[port] == 0 {
			delete(n.HostPorts, port)
		}
	}
}

// PodHostPorts are the node's ports that a pod claims. Sidecars claim theirs,
// other init containers do not.
func PodHostPorts(pod *corev1.Pod) []HostPort {
	var ports []HostPort
	take := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			claim := HostPort{IP: p.HostIP, Protocol: p.Protocol, Port: p.HostPort}
			if claim.IP == "" {
				claim.IP = "0.0.0.0"
			}
			if claim.Protocol == "" {
				claim.Protocol = corev1.ProtocolTCP
			}
			ports = append(ports, claim)
		}
	}
	for i := range pod.Spec.Containers {
		take(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			take(c)
		}
	}
	return ports
}
