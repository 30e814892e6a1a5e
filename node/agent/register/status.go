package register

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// Bounds of the list of images, upstream's.
const (
	maxImages = 50
	maxNames  = 5
)

// status is the node's status now; old gives the conditions' history and what
// others own in it.
func (r *Registrar) status(ctx context.Context, old corev1.NodeStatus) corev1.NodeStatus {
	s := *old.DeepCopy()
	s.Capacity, s.Allocatable = r.machine.capacity.DeepCopy(), r.machine.allocatable.DeepCopy()
	r.extra(&s)
	// Somebody else may advertise resources of this node: they stay as long as
	// they are in its capacity.
	for name, q := range old.Capacity {
		if _, listed := s.Capacity[name]; !listed && !r.once(name) && spec.Extended(name) {
			s.Capacity[name], s.Allocatable[name] = q, q
		}
	}
	s.NodeInfo = r.machine.info
	s.DaemonEndpoints.KubeletEndpoint.Port = r.cfg.Port
	s.Addresses = nil
	for _, ip := range r.cfg.NodeIPs {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: r.cfg.NodeName})
	policy := true
	s.DeclaredFeatures = slices.Clone(r.cfg.Features)
	s.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &policy}
	faults := r.engine(ctx, &s)
	r.images(ctx, &s)
	r.conditions(&s, faults)
	return s
}

// extra adds the resources that come and go.
func (r *Registrar) extra(s *corev1.NodeStatus) {
	if r.cfg.Extra == nil {
		return
	}
	capacity, allocatable := r.cfg.Extra()
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, q := range capacity {
		r.ours[name] = true
		s.Capacity[name], s.Allocatable[name] = q, allocatable[name]
	}
	// What is there no more stays, as none: so upstream tells what has ever been a
	// plugin's from what somebody wrote into the node's status.
	for name := range r.ours {
		if _, there := capacity[name]; !there {
			s.Capacity[name], s.Allocatable[name] = *resource.NewQuantity(0, resource.DecimalSI), *resource.NewQuantity(0, resource.DecimalSI)
		}
	}
}

// once reports whether a resource has ever been one of ours.
func (r *Registrar) once(name corev1.ResourceName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ours[name]
}

// engine asks the engine what it is and returns what is wrong with it.
func (r *Registrar) engine(ctx context.Context, s *corev1.NodeStatus) []string {
	v, err := r.cfg.Engine.Version(ctx, &rt.VersionRequest{})
	if err != nil {
		return []string{"container runtime is down: " + cri.Message(err)}
	}
	s.NodeInfo.ContainerRuntimeVersion = v.GetRuntimeName() + "://" + v.GetRuntimeVersion()
	got, err := r.cfg.Engine.Status(ctx, &rt.StatusRequest{})
	if err != nil {
		return []string{"container runtime status check may not have completed yet: " + cri.Message(err)}
	}
	s.RuntimeHandlers = handlers(got.GetRuntimeHandlers())
	var faults []string
	for _, c := range got.GetStatus().GetConditions() {
		if c.GetStatus() {
			continue
		}
		switch c.GetType() {
		case "RuntimeReady":
			faults = append(faults, "container runtime not ready: "+text(c))
		case "NetworkReady":
			faults = append(faults, "container runtime network not ready: "+text(c))
		}
	}
	return faults
}

func text(c *rt.RuntimeCondition) string {
	return fmt.Sprintf("%s=%t reason:%s message:%s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage())
}

func handlers(list []*rt.RuntimeHandler) []corev1.NodeRuntimeHandler {
	var out []corev1.NodeRuntimeHandler
	for _, h := range list {
		readonly, users := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		out = append(out, corev1.NodeRuntimeHandler{
			Name:     h.GetName(),
			Features: &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &readonly, UserNamespaces: &users},
		})
	}
	slices.SortFunc(out, func(a, b corev1.NodeRuntimeHandler) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// images lists the largest images, for the scheduler's sake.
func (r *Registrar) images(ctx context.Context, s *corev1.NodeStatus) {
	got, err := r.cfg.Engine.ListImages(ctx, &rt.ListImagesRequest{})
	if err != nil {
		return
	}
	s.Images = nil
	for _, i := range got.GetImages() {
		names := append(slices.Clone(i.GetRepoDigests()), i.GetRepoTags()...)
		if len(names) == 0 {
			continue
		}
		s.Images = append(s.Images, corev1.ContainerImage{Names: names[:min(len(names), maxNames)], SizeBytes: int64(i.GetSize())})
	}
	slices.SortFunc(s.Images, func(a, b corev1.ContainerImage) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), slices.Compare(a.Names, b.Names))
	})
	if limit := r.cfg.MaxImages; limit >= 0 {
		s.Images = s.Images[:min(len(s.Images), limit)]
	}
}

// pressure is what a condition says when there is none, and when there is.
type pressure struct {
	condition               corev1.NodeConditionType
	reason, message         string
	highReason, highMessage string
}

var (
	memoryPressure = pressure{corev1.NodeMemoryPressure, "KubeletHasSufficientMemory", "kubelet has sufficient memory available",
		"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"}
	diskPressure = pressure{corev1.NodeDiskPressure, "KubeletHasNoDiskPressure", "kubelet has no disk pressure",
		"KubeletHasDiskPressure", "kubelet has disk pressure"}
	pidPressure = pressure{corev1.NodePIDPressure, "KubeletHasSufficientPID", "kubelet has sufficient PID available",
		"KubeletHasInsufficientPID", "kubelet has insufficient PID available"}
)

func (p pressure) is(high bool) corev1.NodeCondition {
	if high {
		return corev1.NodeCondition{Type: p.condition, Status: corev1.ConditionTrue, Reason: p.highReason, Message: p.highMessage}
	}
	return corev1.NodeCondition{Type: p.condition, Status: corev1.ConditionFalse, Reason: p.reason, Message: p.message}
}

func (r *Registrar) conditions(s *corev1.NodeStatus, faults []string) {
	var high []corev1.NodeConditionType
	if r.cfg.Pressures != nil {
		high = r.cfg.Pressures()
	}
	for _, p := range []pressure{memoryPressure, diskPressure, pidPressure} {
		set(s, p.is(slices.Contains(high, p.condition)))
	}
	if r.cfg.Fault != nil {
		if why := r.cfg.Fault(); why != "" {
			faults = append(faults, why)
		}
	}
	ready := corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status",
	}
	if len(faults) > 0 {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", strings.Join(faults, ", ")
	}
	if len(faults) > 1 {
		ready.Message = "[" + ready.Message + "]"
	}
	set(s, ready)
}

// set replaces a condition; its transition time moves only with its status.
func set(s *corev1.NodeStatus, c corev1.NodeCondition) {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	i := slices.IndexFunc(s.Conditions, func(have corev1.NodeCondition) bool { return have.Type == c.Type })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.LastTransitionTime = s.Conditions[i].LastTransitionTime
	}
	s.Conditions[i] = c
}
