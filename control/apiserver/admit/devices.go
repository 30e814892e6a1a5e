package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/kinds"
)

// deviceRules are what upstream's storage asks of those who write claims to devices:
// access for administrators is had in namespaces that are marked for it, and who
// gives devices out, or tells of their state, must be entitled to
// (pkg/registry/resource/utils.go).
type deviceRules struct {
	Judging
	objects Reader
	authz   *authz.Authorizer
}

func (r deviceRules) Validate(ctx context.Context, a *resource.Attributes) error {
	switch now := a.Object.(type) {
	case *resourcev1.ResourceClaim:
		if a.Operation == resource.OpCreate && a.Target.Subresource == "" {
			return r.created(ctx, a, now, &now.Spec, field.NewPath("spec"))
		}
		old, ok := a.Old.(*resourcev1.ResourceClaim)
		if ok && a.Operation == resource.OpUpdate && a.Target.Subresource == "status" {
			return invalid(a, now, r.status(ctx, a, now, old))
		}
	case *resourcev1.ResourceClaimTemplate:
		if a.Operation == resource.OpCreate {
			return r.created(ctx, a, now, &now.Spec.Spec, field.NewPath("spec"))
		}
	}
	return nil
}

func invalid(a *resource.Attributes, obj metav1.Object, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(a.GVK.GroupKind(), obj.GetName(), errs)
}

// created looks for access that only administrators have.
func (r deviceRules) created(ctx context.Context, a *resource.Attributes, obj metav1.Object, s *resourcev1.ResourceClaimSpec, spec *field.Path) error {
	for i := range s.Devices.Requests {
		if e := s.Devices.Requests[i].Exactly; e != nil && kinds.Deref(e.AdminAccess) {
			return invalid(a, obj, r.administered(ctx, a.Target.Namespace, spec.Child("devices", "requests").Index(i).Child("adminAccess")))
		}
	}
	return nil
}

// administered says what is wrong when a namespace is not marked for such access.
func (r deviceRules) administered(ctx context.Context, namespace string, at *field.Path) field.ErrorList {
	obj, err := cached(ctx, r.objects, group(corev1.SchemeGroupVersion, "namespaces", "").Object(namespace))
	if err != nil {
		return field.ErrorList{field.InternalError(at, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))}
	}
	if ns, ok := obj.(*corev1.Namespace); ok && ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
		return nil
	}
	return field.ErrorList{field.Forbidden(at, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))}
}

func (r deviceRules) status(ctx context.Context, a *resource.Attributes, now, old *resourcev1.ResourceClaim) (errs field.ErrorList) {
	if at := supervised(now); at != nil && supervised(old) == nil {
		errs = append(errs, r.administered(ctx, now.Namespace, at)...)
	}
	at := field.NewPath("status")
	given := !equality.Semantic.DeepEqual(now.Status.Allocation, old.Status.Allocation) || !equality.Semantic.DeepEqual(now.Status.ReservedFor, old.Status.ReservedFor)
	if given {
		if err := r.may(ctx, a.User, authz.Attributes{Subresource: resourcev1.SubresourceBinding}, ""); err != nil {
			errs = append(errs, field.Forbidden(at.Child("allocation"), `changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission: `+err.Error()))
		}
	}
	if now.Status.Allocation == nil {
		return errs
	}
	prefixes := []string{resourcev1.VerbPrefixArbitraryNode}
	if node := allocatedOn(now.Status.Allocation); node != "" && runsOn(a.User, node) {
		prefixes = []string{resourcev1.VerbPrefixAssociatedNode, resourcev1.VerbPrefixArbitraryNode}
	}
	for _, driver := range toldBy(now, old) {
		q := authz.Attributes{Subresource: resourcev1.SubresourceDriver, Namespace: now.Namespace, Name: driver}
		if err := r.may(ctx, a.User, q, prefixes...); err != nil {
			errs = append(errs, field.Forbidden(at.Child("devices"), `changing status.devices requires resource="resourceclaims/driver", verb="[`+strings.Join(prefixes, "update ")+`update]" permission: `+err.Error()))
		}
	}
	return errs
}

// may asks for the right to update or to patch, since what is written is the same, with
// any of the verbs' prefixes. The error is what the first question was answered with, in
// the words of every 403.
func (r deviceRules) may(ctx context.Context, who identity.Identity, q authz.Attributes, prefixes ...string) (first error) {
	q.User, q.Group, q.Version, q.Resource = who, resourcev1.GroupName, resourcev1.SchemeGroupVersion.Version, "resourceclaims"
	for _, prefix := range prefixes {
		for _, verb := range []string{"update", "patch"} {
			q.Verb = prefix + verb
			allowed, why := r.authz.Authorize(ctx, q)
			if allowed {
				return nil
			}
			if first == nil {
				first = authz.Forbidden(q, why)
			}
		}
	}
	return first
}

// supervised is where a claim says that it has access for administrators, nil when
// it does not.
func supervised(c *resourcev1.ResourceClaim) *field.Path {
	if c.Status.Allocation == nil {
		return nil
	}
	for i := range c.Status.Allocation.Devices.Results {
		if kinds.Deref(c.Status.Allocation.Devices.Results[i].AdminAccess) {
			return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
		}
	}
	return nil
}

// allocatedOn is the one node of an allocation, "" when it is not of one.
func allocatedOn(a *resourcev1.AllocationResult) string {
	if a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	t := a.NodeSelector.NodeSelectorTerms[0]
	if len(t.MatchExpressions) != 0 || len(t.MatchFields) != 1 {
		return ""
	}
	f := t.MatchFields[0]
	if f.Key != metav1.ObjectNameField || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// runsOn says whether a service account's pod is on a node.
func runsOn(who identity.Identity, node string) bool {
	on := who.Extra["authentication.kubernetes.io/node-name"]
	return len(on) == 1 && on[0] == node
}

// toldBy are the drivers of the devices of which something else is said than before.
func toldBy(now, old *resourcev1.ResourceClaim) (drivers []string) {
	type device struct{ driver, pool, device, share string }
	key := func(d *resourcev1.AllocatedDeviceStatus) device {
		return device{d.Driver, d.Pool, d.Device, kinds.Deref(d.ShareID)}
	}
	before := map[device]*resourcev1.AllocatedDeviceStatus{}
	for i := range old.Status.Devices {
		before[key(&old.Status.Devices[i])] = &old.Status.Devices[i]
	}
	for i := range now.Status.Devices {
		d := &now.Status.Devices[i]
		if was := before[key(d)]; was == nil || !equality.Semantic.DeepEqual(was, d) {
			drivers = append(drivers, d.Driver)
		}
		delete(before, key(d))
	}
	for k := range before {
		drivers = append(drivers, k.driver)
	}
	slices.Sort(drivers)
	return slices.Compact(drivers)
}
