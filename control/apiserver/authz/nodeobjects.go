package authz

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sampan-dev/sampan/internal/target"
)

// selects says whether the selector leaves only objects whose field is the value.
func selects(selector, name, value string) bool {
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	got, ok := parsed.RequiresExactMatch(name)
	return ok && got == value
}

// nodes: a node reads itself, and writes what NodeRestriction lets it.
func (n *Nodes) nodes(node string, q Attributes) (bool, string) {
	switch q.Subresource + "/" + q.Verb {
	case "/create", "/update", "/patch", "status/update", "status/patch":
		return true, ""
	case "/get", "/list", "/watch":
		switch q.Name {
		case node:
			return true, ""
		case "":
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		}
		return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, q.Name)
	}
	return false, ""
}

// slices: a node looks after the slices of its own devices.
func (n *Nodes) slices(ctx context.Context, node string, q Attributes) (bool, string) {
	if q.Subresource != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch q.Verb {
	case "create":
		return true, ""
	case "get", "update", "patch", "delete":
		if q.Name == "" {
			return false, "No Object name found"
		}
		obj, err := n.objects.Get(ctx, target.Of(resourcev1.SchemeGroupVersion.WithResource("resourceslices"), "").Object(q.Name), metav1.GetOptions{ResourceVersion: "0"})
		slice, ok := obj.(*resourcev1.ResourceSlice)
		if err != nil || !ok || slice.Spec.NodeName == nil || *slice.Spec.NodeName != node {
			return false, unrelated(node)
		}
		return true, ""
	case "list", "watch", "deletecollection":
		return selects(q.FieldSelector, resourcev1.ResourceSliceSelectorNodeName, node),
			"can only list/watch/deletecollection resourceslices with nodeName field selector"
	}
	return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

// podRequests: a node asks for its pods' certificates; admission judges each.
func (n *Nodes) podRequests(ctx context.Context, node string, q Attributes) (bool, string) {
	if q.Subresource != "" {
		return false, "nodes may not access the status subresource of PodCertificateRequests"
	}
	switch q.Verb {
	case "create":
		return true, ""
	case "get":
		if q.Name == "" {
			return false, "No Object name found"
		}
		obj, err := n.objects.Get(ctx, target.Of(certificatesv1.SchemeGroupVersion.WithResource("podcertificaterequests"), q.Namespace).Object(q.Name), metav1.GetOptions{ResourceVersion: "0"})
		request, ok := obj.(*certificatesv1.PodCertificateRequest)
		if err != nil || !ok || string(request.Spec.NodeName) != node {
			return false, unrelated(node)
		}
		return true, ""
	case "list", "watch":
		return selects(q.FieldSelector, "spec.nodeName", node), "can only list/watch podcertificaterequests with nodeName field selector"
	}
	return false, fmt.Sprintf("nodes may not %s podcertificaterequests", q.Verb)
}
