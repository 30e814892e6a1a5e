package admit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	features "k8s.io/component-helpers/nodedeclaredfeatures"
	helpers "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// topologyLabels are those of a node that its pods get, too.
var topologyLabels = []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// podTopology tells pods where they run: by the binding that puts them there, or
// when they are made for a node.
type podTopology struct {
	Changing
	objects Reader
}

func (r podTopology) Admit(ctx context.Context, a *resource.Attributes) error {
	if a.Operation != resource.OpCreate || !is(a, "", "pods") {
		return nil
	}
	switch o := a.Object.(type) {
	case *corev1.Pod:
		if a.Target.Subresource == "" {
			return r.label(ctx, &o.ObjectMeta, o.Spec.NodeName)
		}
	case *corev1.Binding:
		if o.Target.Kind == "Node" {
			return r.label(ctx, &o.ObjectMeta, o.Target.Name)
		}
	}
	return nil
}

func (r podTopology) label(ctx context.Context, meta *metav1.ObjectMeta, name string) error {
	if name == "" {
		return nil
	}
	node, err := nodeOf(ctx, r.objects, name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, label := range topologyLabels {
		value, ok := node.Labels[label]
		if !ok {
			continue
		}
		if meta.Labels == nil {
			meta.Labels = map[string]string{}
		}
		meta.Labels[label] = value
	}
	return nil
}

func nodeOf(ctx context.Context, r Reader, name string) (*corev1.Node, error) {
	obj, err := cached(ctx, r, core("nodes", "", name))
	if err != nil {
		return nil, err
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return nil, errors.New("not a node")
	}
	return node, nil
}

// changedPod is a pod on a node whose specification an update changes: by itself
// or by the subresource.
func changedPod(a *resource.Attributes) (pod, old *corev1.Pod, ok bool) {
	if a.Operation != resource.OpUpdate || !is(a, "", "pods") {
		return nil, nil, false
	}
	pod, ok1 := a.Object.(*corev1.Pod)
	old, ok2 := a.Old.(*corev1.Pod)
	return pod, old, ok1 && ok2 && pod.Spec.NodeName != "" && pod.Generation != old.Generation
}

// lookup is the pod's node, or why the update is refused without it.
func lookup(ctx context.Context, r Reader, name string) (*corev1.Node, error) {
	node, err := nodeOf(ctx, r, name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("node %q not found", name)
	case err != nil:
		return nil, refuse("failed to get node %q: %w", name, err)
	}
	return node, nil
}

// nodeFeatures refuses changes of a running pod that its node has not declared to
// be able to make.
type nodeFeatures struct {
	Judging
	objects Reader
}

// servedVersion is the version whose rules apply.
var servedVersion = version.MustParseSemantic("1.37.0")

func (r nodeFeatures) Validate(ctx context.Context, a *resource.Attributes) error {
	pod, old, ok := changedPod(a)
	if sub := a.Target.Subresource; !ok || sub != "" && sub != "resize" {
		return nil
	}
	needed, err := features.DefaultFramework.InferForPodUpdate(
		&features.PodInfo{Spec: &old.Spec, Status: &old.Status}, &features.PodInfo{Spec: &pod.Spec, Status: &pod.Status}, servedVersion)
	if err != nil {
		return refuse("failed to infer pod capability requirements: %w", err)
	}
	if needed.IsEmpty() {
		return nil
	}
	node, err := lookup(ctx, r.objects, pod.Spec.NodeName)
	if err != nil {
		return err
	}
	match, err := features.DefaultFramework.MatchNode(needed, node)
	if err != nil {
		return refuse("failed to match pod requirements against node %q: %w", node.Name, err)
	}
	if !match.IsMatch {
		return fmt.Errorf("pod update requires features %s which are not available on node %q", strings.Join(match.UnsatisfiedRequirements, ", "), node.Name)
	}
	return nil
}

// Why a resize is refused, for clients.
const (
	nodeCapacity        metav1.CauseType = "NodeCapacity"
	unsupportedPlatform metav1.CauseType = "UnsupportedPlatform"
)

// podResize refuses to make a pod larger than its node.
type podResize struct {
	Judging
	objects Reader
}

func (r podResize) Validate(ctx context.Context, a *resource.Attributes) error {
	pod, _, ok := changedPod(a)
	if !ok || a.Target.Subresource != "resize" {
		return nil
	}
	node, err := lookup(ctx, r.objects, pod.Spec.NodeName)
	if err != nil {
		return err
	}
	because := func(cause metav1.CauseType, err error) error {
		status := a.Forbidden(err)
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
		return status
	}
	if os, ok := node.Labels[corev1.LabelOSStable]; ok && os != "linux" {
		return because(unsupportedPlatform, fmt.Errorf("pod resize is only supported on linux nodes, node %q is %q", node.Name, os))
	}
	asked, room := helpers.PodRequests(pod, helpers.PodResourcesOptions{}), node.Status.Allocatable
	var parts []string
	if asked.Cpu().Cmp(*room.Cpu()) > 0 {
		parts = append(parts, fmt.Sprintf("cpu, requested: %d, allocatable: %d", asked.Cpu().MilliValue(), room.Cpu().MilliValue()))
	}
	if asked.Memory().Cmp(*room.Memory()) > 0 {
		parts = append(parts, fmt.Sprintf("memory, requested: %d, allocatable: %d", asked.Memory().Value(), room.Memory().Value()))
	}
	if len(parts) == 0 {
		return nil
	}
	return because(nodeCapacity, fmt.Errorf("node didn't have enough allocatable resources: %s", strings.Join(parts, "; ")))
}
