package scheduler

import (
	"maps"
	"slices"
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

// Requests are what a pod asks for, with its overhead (KEP-688), the greater of
// its init containers and its containers, as component-helpers computes it.
func Requests(pod *corev1.Pod) Resources {
	return NewResources(podresource.PodRequests(pod, podresource.PodResourcesOptions{UseStatusResources: true}))
}

// What upstream assumes of a container that requests nothing, in scores only.
const (
	defaultMilliCPU = 100
	defaultMemory   = 200 << 20
)

// NonZeroRequests are Requests where a container without cpu or memory requests
// counts as a small one, so that scores spread such pods too.
func NonZeroRequests(pod *corev1.Pod) Resources {
	return NewResources(podresource.PodRequests(pod, podresource.PodResourcesOptions{
		UseStatusResources: true,
		NonMissingContainerRequests: corev1.ResourceList{
			corev1.ResourceCPU:    *milli(defaultMilliCPU),
			corev1.ResourceMemory: *bytes(defaultMemory),
		},
	}))
}

// Pod is a pod on a node with what the filters ask of it again and again.
type Pod struct {
	*corev1.Pod
	Requests, NonZero Resources
}

// HasAffinity says whether the pod has affinity or anti-affinity to other pods.
func (p Pod) HasAffinity() bool {
	a := p.Spec.Affinity
	return a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil)
}

// Node is a node with the pods that are, or are about to be, on it. Plugins only
// read it.
type Node struct {
	*corev1.Node
	Allocatable Resources
	MaxPods     int64
	Pods        map[types.UID]Pod
	// Requested and NonZero add up what the pods ask for.
	Requested, NonZero Resources
	// HostPorts counts the pods' claims on the node's ports.
	HostPorts map[HostPort]int
	// Images are the sizes in bytes of the images that the node has, by name.
	Images map[string]int64
	// affine counts the pods with pod (anti-)affinity.
	affine int
}

// HostPort is a port of the node itself.
type HostPort struct {
	IP       string
	Protocol corev1.Protocol
	Port     int32
}

func newNode(n *corev1.Node) *Node {
	node := &Node{Pods: map[types.UID]Pod{}, HostPorts: map[HostPort]int{}}
	node.set(n)
	return node
}

// set takes over the object; the pods stay.
func (n *Node) set(obj *corev1.Node) {
	n.Node = obj
	if obj == nil {
		return
	}
	n.Allocatable = NewResources(obj.Status.Allocatable)
	n.MaxPods = obj.Status.Allocatable.Pods().Value()
	n.Images = map[string]int64{}
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

// add puts a pod on the node.
func (n *Node) add(p *corev1.Pod) {
	n.remove(p.UID)
	pod := Pod{Pod: p, Requests: Requests(p), NonZero: NonZeroRequests(p)}
	n.Pods[p.UID] = pod
	n.count(pod, 1)
}

// remove takes a pod off the node, if it is there.
func (n *Node) remove(uid types.UID) {
	pod, ok := n.Pods[uid]
	if !ok {
		return
	}
	delete(n.Pods, uid)
	n.count(pod, -1)
}

func (n *Node) count(pod Pod, sign int64) {
	n.Requested.Add(pod.Requests, sign)
	n.NonZero.Add(pod.NonZero, sign)
	if pod.HasAffinity() {
		n.affine += int(sign)
	}
	for _, port := range PodHostPorts(pod.Pod) {
		if n.HostPorts[port] += int(sign); n.HostPorts[port] == 0 {
			delete(n.HostPorts, port)
		}
	}
}

// clone copies the node so that pods can be taken away to see what would be.
func (n *Node) clone() *Node {
	c := *n
	c.Pods, c.HostPorts = maps.Clone(n.Pods), maps.Clone(n.HostPorts)
	c.Requested.Scalar, c.NonZero.Scalar = maps.Clone(n.Requested.Scalar), maps.Clone(n.NonZero.Scalar)
	return &c
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

// byName orders nodes.
func byName(nodes []*Node) []*Node {
	slices.SortFunc(nodes, func(a, b *Node) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return nodes
}
