package admit

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// notReadySeconds is how long a pod stays bound to a node that is gone.
const notReadySeconds = 300

// tolerations lets pods stay for five minutes on a node that does not answer,
// unless they say otherwise.
type tolerations struct{ Changing }

func (tolerations) Admit(_ context.Context, a *resource.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Target.Subresource != "" || a.Operation == resource.OpDelete {
		return nil
	}
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		has := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		})
		if !has {
			seconds := int64(notReadySeconds)
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: taint,
				Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
		}
	}
	return nil
}

// freshNodes keeps pods off a new node until it has said that it is ready.
type freshNodes struct{ Changing }

func (freshNodes) Admit(_ context.Context, a *resource.Attributes) error {
	node, ok := a.Object.(*corev1.Node)
	if !ok || a.Operation != resource.OpCreate || a.Target.Subresource != "" {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
		node.Spec.Taints = append(node.Spec.Taints, taint)
	}
	return nil
}

// externalIPs refuses addresses by which a service could take over traffic that
// is not its own (CVE-2020-8554); those that an old service has may stay.
type externalIPs struct{ Judging }

func (externalIPs) Validate(_ context.Context, a *resource.Attributes) error {
	svc, ok := a.Object.(*corev1.Service)
	if !ok || a.Target.Subresource != "" {
		return nil
	}
	var had []string
	if old, ok := a.Old.(*corev1.Service); ok {
		had = old.Spec.ExternalIPs
	}
	for _, ip := range svc.Spec.ExternalIPs {
		if !slices.Contains(had, ip) {
			return errors.New("Use of external IPs is denied by admission control") //nolint:staticcheck // upstream's sentence
		}
	}
	return nil
}

// escalation refuses roles and bindings that grant more than their writer holds.
type escalation struct {
	Judging
	authz *authz.Authorizer
}

func (r escalation) Validate(ctx context.Context, a *resource.Attributes) error {
	if a.Target.Resource.Group != "rbac.authorization.k8s.io" || a.Object == nil {
		return nil
	}
	return r.authz.CheckEscalation(ctx, a.User, a.Object, a.Old)
}

// storageInUse marks claims and volumes so that they outlive the pods that use
// them; the protection controllers take the mark off.
type storageInUse struct{ Changing }

func (storageInUse) Admit(_ context.Context, a *resource.Attributes) error {
	if a.Operation != resource.OpCreate || a.Target.Subresource != "" {
		return nil
	}
	switch o := a.Object.(type) {
	case *corev1.PersistentVolumeClaim:
		o.Finalizers = with(o.Finalizers, "kubernetes.io/pvc-protection")
	case *corev1.PersistentVolume:
		o.Finalizers = with(o.Finalizers, "kubernetes.io/pv-protection")
	}
	return nil
}

func with(set []string, item string) []string {
	if slices.Contains(set, item) {
		return set
	}
	return append(set, item)
}
