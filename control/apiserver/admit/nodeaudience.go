package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// audience is NodeRestriction's part about whom a token of a pod is for (KEP-4412): one
// that the pod itself asks for, in a projected volume or through the driver of one of
// its volumes, or one that the node was given the right to ask for, as it needs for
// programs that fetch credentials for images.
func (r nodeRestriction) audience(ctx context.Context, a *resource.Attributes, want []string, pod *corev1.Pod) error {
	if len(want) > 1 {
		return errors.New("node may only request 0 or 1 audiences")
	}
	audience := ""
	if len(want) == 1 {
		audience = want[0]
	}
	asks, err := r.asksFor(ctx, pod, audience)
	if err != nil {
		return fmt.Errorf("error validating audience %q: %w", audience, err)
	}
	if asks {
		return nil
	}
	q := authz.Attributes{User: a.User, Verb: "request-serviceaccounts-token-audience", Group: a.Target.Resource.Group, Version: a.Target.Resource.Version,
		Resource: audience, Namespace: a.Target.Namespace, Name: a.Target.Name}
	if allowed, _ := r.authz.Authorize(ctx, q); allowed {
		return nil
	}
	return fmt.Errorf("%s is not authorized to request tokens for audience %q", a.User.Name, audience)
}

// asksFor says whether a pod's volumes want tokens for an audience. What can't be found
// out about one volume is an error unless another one does.
func (r nodeRestriction) asksFor(ctx context.Context, pod *corev1.Pod, audience string) (bool, error) {
	var unknown []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
		}) {
			return true, nil
		}
		name, err := r.driverOf(ctx, pod, v)
		if err != nil || name == "" {
			unknown = append(unknown, err)
			continue
		}
		driver, err := readIn[*storagev1.CSIDriver](ctx, r.objects, group(storagev1.SchemeGroupVersion, "csidrivers", "").Object(name))
		if err != nil {
			unknown = append(unknown, err)
			continue
		}
		if slices.ContainsFunc(driver.Spec.TokenRequests, func(t storagev1.TokenRequest) bool { return t.Audience == audience }) {
			return true, nil
		}
	}
	return false, errors.Join(unknown...)
}

// driverOf is the CSI driver of a volume, "" for none.
func (r nodeRestriction) driverOf(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (string, error) {
	var claim string
	switch {
	case v.CSI != nil:
		return v.CSI.Driver, nil
	case v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil:
		claim = pod.Name + "-" + v.Name
	case v.PersistentVolumeClaim != nil:
		claim = v.PersistentVolumeClaim.ClaimName
	default:
		return "", nil
	}
	c, err := read[*corev1.PersistentVolumeClaim](ctx, r.objects, "persistentvolumeclaims", pod.Namespace, claim)
	if err != nil {
		return "", err
	}
	volume, err := read[*corev1.PersistentVolume](ctx, r.objects, "persistentvolumes", "", c.Spec.VolumeName)
	if err != nil || volume.Spec.CSI == nil {
		return "", err
	}
	return volume.Spec.CSI.Driver, nil
}
