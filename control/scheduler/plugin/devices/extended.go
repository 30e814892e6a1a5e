package devices

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/device"
)

// inMemory is the name of a claim that is not written yet; no object can have it.
const inMemory = "<extended-resources>"

func newAllocator(l *device.Ledger, programs *cel.Cache) (structured.Allocator, error) {
	return structured.NewAllocator(context.Background(), features, l.State(), l, l.Slices(), programs)
}

// extendedClaim is the claim that stands for the pod's extended resources: one that
// an earlier attempt has left, or a template in memory; nil when no class stands
// for any of them.
func (a *attempt) extendedClaim() *resourcev1.ResourceClaim {
	want := scheduler.Requests(a.pod).Scalar
	if !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(name corev1.ResourceName) bool {
		return want[name] != 0 && a.ledger.ClassOf(name) != nil
	}) {
		return nil
	}
	a.scalar = want
	if left := a.ledger.ExtendedClaim(a.pod.UID); left != nil {
		a.template = left
		return left
	}
	yes := true
	a.template = &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: a.pod.Namespace, Name: inMemory, UID: uuid.NewUUID(), GenerateName: a.pod.Name + "-extended-resources-",
		Annotations:     map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: a.pod.Name, UID: a.pod.UID, Controller: &yes}},
	}}
	return a.template
}

// onNode makes the claim for the extended resources that a node has as devices, and
// says which container's request is which; nil when it has them all otherwise.
func (a *attempt) onNode(n *scheduler.Node) (*resourcev1.ResourceClaim, []corev1.ContainerExtendedResourceRequest, scheduler.Reason) {
	if a.template == nil {
		return nil, nil, scheduler.OK
	}
	if a.template.Spec.Devices.Requests != nil { // left by an earlier attempt: it must go first
		return nil, nil, refusal("cannot schedule extended resource claim")
	}
	classes := map[corev1.ResourceName]string{}
	for name, amount := range a.scalar {
		if amount == 0 || !extended(name) {
			continue
		}
		class, total := a.ledger.ClassOf(name), n.Allocatable.Scalar[name]
		if class != nil && total == 0 {
			classes[name] = class.Name
			continue
		}
		if _, known := n.Allocatable.Scalar[name]; !known {
			return nil, nil, refusal("cannot fit resource")
		}
	}
	if len(classes) == 0 {
		return nil, nil, scheduler.OK
	}
	c := a.template.DeepCopy()
	requests, mappings := requestsOf(a.pod, classes)
	c.Spec.Devices.Requests = requests
	return c, mappings, scheduler.OK
}

// extended says whether a resource is one that a class may stand for.
func extended(name corev1.ResourceName) bool {
	s := string(name)
	if strings.HasPrefix(s, resourcev1.ResourceDeviceClassPrefix) {
		return true
	}
	return strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix)
}

// requestsOf turns the extended resources of a pod's containers into requests for
// devices of classes. Init containers that have ended before the others begin use
// those of later ones again, and share what they need more.
func requestsOf(pod *corev1.Pod, classes map[corev1.ResourceName]string) (requests []resourcev1.DeviceRequest, mappings []corev1.ContainerExtendedResourceRequest) {
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		s := sharing{pod: pod, resource: name, class: classes[name]}
		s.work()
		requests = append(requests, s.requests...)
		mappings = append(append(mappings, s.lasting...), s.passing...)
	}
	slices.SortFunc(requests, func(x, y resourcev1.DeviceRequest) int { return cmp.Compare(x.Name, y.Name) })
	return requests, mappings
}

// sharing finds the requests for one resource.
type sharing struct {
	pod      *corev1.Pod
	resource corev1.ResourceName
	class    string
	requests []resourcev1.DeviceRequest
	// lasting and passing are what containers that stay, and init containers that
	// end, have.
	lasting, passing []corev1.ContainerExtendedResourceRequest
}

func (s *sharing) work() {
	inits := len(s.pod.Spec.InitContainers)
	containers := slices.Concat(s.pod.Spec.InitContainers, s.pod.Spec.Containers)
	passes := func(i int) bool {
		policy := containers[i].RestartPolicy
		return i < inits && (policy == nil || *policy != corev1.ContainerRestartPolicyAlways)
	}
	lasting := make([]*resourcev1.DeviceRequest, len(containers))
	for i := range containers {
		if !passes(i) {
			lasting[i] = s.request(i, &containers[i], nil, &s.lasting)
		}
	}
	var most *resourcev1.DeviceRequest
	shared := map[string]bool{}
	for i := range containers {
		if !passes(i) {
			continue
		}
		r := s.request(i, &containers[i], lasting[i:], &s.passing)
		if r == nil {
			continue
		}
		shared[r.Name] = true
		if most == nil || most.Exactly.Count < r.Exactly.Count {
			most = r
		}
	}
	for i := range s.passing { // one after the other they use the same devices
		if most != nil && shared[s.passing[i].RequestName] {
			s.passing[i].RequestName = most.Name
		}
	}
	if most != nil {
		s.requests = append(s.requests, *most)
	}
	for _, r := range lasting {
		if r != nil {
			s.requests = append(s.requests, *r)
		}
	}
}

// request is what one container needs beyond what it can use of others; nil when
// that is nothing.
func (s *sharing) request(i int, c *corev1.Container, reusable []*resourcev1.DeviceRequest, into *[]corev1.ContainerExtendedResourceRequest) *resourcev1.DeviceRequest {
	q, ok := c.Resources.Requests[s.resource]
	if !ok {
		return nil
	}
	want, exact := q.AsInt64()
	if !exact || want == 0 {
		return nil
	}
	note := func(request string) {
		*into = append(*into, corev1.ContainerExtendedResourceRequest{ContainerName: c.Name, ResourceName: string(s.resource), RequestName: request})
	}
	have := int64(0)
	for _, r := range reusable {
		if r == nil {
			continue
		}
		have += r.Exactly.Count
		note(r.Name)
		if have >= want {
			return nil
		}
	}
	at := slices.Index(slices.Sorted(maps.Keys(c.Resources.Requests)), s.resource)
	r := &resourcev1.DeviceRequest{Name: fmt.Sprintf("container-%d-request-%d", i, at), Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: s.class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: want - have,
	}}
	note(r.Name)
	return r
}
