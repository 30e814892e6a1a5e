package core

import (
	"fmt"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// Node is the kind for a machine that runs pods.
func Node() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("Node"),
		Resource: "nodes",
		Singular: "node",
		Short:    []string{"no"},
		Storage:  "minions",
		New:      func() kinds.Object { return &corev1.Node{} },
		NewList:  func() runtime.Object { return &corev1.NodeList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Default:        kinds.Each(defaultNode),
			PrepareCreate:  kinds.Each(prepareNode),
			PrepareUpdate:  kinds.Pair(prepareNodeUpdate),
			Validate:       kinds.Check(validateNode),
			ValidateUpdate: kinds.CheckUpdate(validateNodeUpdate),
			Warnings:       kinds.Warn(nodeWarnings),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(nodeTexts(), "Name", "Status", "Roles", "Age", "Version", "Internal-IP|wide",
				"External-IP|wide", "OS-Image|wide", "Kernel-Version|wide", "Container-Runtime|wide"),
			Row: kinds.Row(nodeRow),
		},
		FieldLabels: []string{"spec.unschedulable"},
		Fields: kinds.Fields(func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": fmt.Sprint(n.Spec.Unschedulable)}
		}),
		Subresources: []kinds.Subresource{
			kinds.StatusRules(copyNodeStatus, validateNodeUpdate),
			proxyOf("NodeProxyOptions", func() runtime.Object { return &corev1.NodeProxyOptions{} }),
		},
	}
}

// nodeWarnings are about fields that mean nothing any more, and ranges that parsers
// disagree about.
func nodeWarnings(n, _ *corev1.Node) []string {
	var w []string
	if n.Spec.ConfigSource != nil { //nolint:staticcheck // it is what the warning is about
		w = append(w, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		w = append(w, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		w = append(w, validation.GetWarningsForCIDR(kinds.NewPath("spec").Child("podCIDRs").Index(i).Field(), cidr)...)
	}
	return w
}

// prepareNode drops what is no longer served, or not yet: configuration by objects,
// and who gives way to pods that grow.
func prepareNode(n *corev1.Node) {
	n.Spec.ConfigSource = nil //nolint:staticcheck // nobody serves it, so it goes
	n.Status.Config, n.Spec.PodPreemptionPolicy = nil, nil
}

func prepareNodeUpdate(n, old *corev1.Node) {
	n.Status = old.Status
	if old.Spec.ConfigSource == nil { //nolint:staticcheck // it stays where it was before
		n.Spec.ConfigSource = nil //nolint:staticcheck // nobody serves it, so it goes
	}
	if old.Spec.PodPreemptionPolicy == nil {
		n.Spec.PodPreemptionPolicy = nil
	}
}

func copyNodeStatus(next, body *corev1.Node) {
	old := next.Status
	next.Status = body.Status
	if old.Config == nil {
		next.Status.Config = nil
	}
	if old.NodeInfo.RunningInUserNamespace == nil {
		next.Status.NodeInfo.RunningInUserNamespace = nil
	}
}

// proxyOf is the subresource through which a client talks HTTP to the object.
func proxyOf(kind string, options func() runtime.Object) kinds.Subresource {
	return kinds.Subresource{
		Name:  "proxy",
		GVK:   gvk(kind),
		Verbs: []string{"create", "delete", "get", "patch", "update"},
		New:   options,
	}
}

// defaultNode lets everything be allocatable when a node does not say, and keeps
// the one pod range and the list of them in step; the one wins.
func defaultNode(n *corev1.Node) {
	switch one, list := n.Spec.PodCIDR, n.Spec.PodCIDRs; {
	case one == "" && len(list) > 0:
		n.Spec.PodCIDR = list[0]
	case one != "" && (len(list) == 0 || list[0] != one):
		n.Spec.PodCIDRs = []string{one}
	}
	roundResources(n.Status.Capacity)
	roundResources(n.Status.Allocatable)
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
}

func nodeRow(n *corev1.Node, now time.Time) []any {
	info := n.Status.NodeInfo
	kernel := orUnknown(info.KernelVersion)
	if info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []any{n.Name, nodeStatus(n), nodeRoles(n), kinds.Created(n, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		orUnknown(info.OSImage), kernel, orUnknown(info.ContainerRuntimeVersion)}
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, condition := range n.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if condition.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

const (
	roleLabelPrefix = "node-role.kubernetes.io/"
	roleLabel       = "kubernetes.io/role"
)

func nodeRoles(n *corev1.Node) string {
	seen := map[string]bool{}
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, roleLabelPrefix); ok && role != "" {
			seen[role] = true
		}
		if key == roleLabel && value != "" {
			seen[value] = true
		}
	}
	if len(seen) == 0 {
		return kinds.None
	}
	roles := make([]string, 0, len(seen))
	for role := range seen {
		roles = append(roles, role)
	}
	sort.Strings(roles)
	return strings.Join(roles, ",")
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, address := range n.Status.Addresses {
		if address.Type == kind {
			return address.Address
		}
	}
	return kinds.None
}

func orUnknown(s string) string {
	if s == "" {
		return kinds.Unknown
	}
	return s
}
