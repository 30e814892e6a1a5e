package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// maxDisrupted bounds a budget's list of pods whose eviction its controller has
// not seen yet.
const maxDisrupted = 2000

var budgetsResource = policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")

// eviction is one request to evict a pod, with what it was decided from.
type eviction struct {
	server *Server
	req    *Request
	opts   *metav1.DeleteOptions
	// pinned says that the client named a resourceVersion itself.
	pinned bool
}

// evict deletes a pod if its disruption budget allows.
func (s *Server) evict(ctx context.Context, r *Request) (runtime.Object, error) {
	body, ok := r.Body.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", r.Body))
	}
	if body.Name != r.Target.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	if o := body.DeleteOptions; o != nil && o.IgnoreStoreReadErrorWithClusterBreakingPotential != nil && *o.IgnoreStoreReadErrorWithClusterBreakingPotential {
		return nil, apierrors.NewInvalid(policyv1.SchemeGroupVersion.WithKind("Eviction").GroupKind(), r.Target.Name, field.ErrorList{field.Invalid(
			field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential"), true,
			"can not be set for pod eviction, try after removing the option")})
	}
	e := &eviction{server: s, req: r, opts: &metav1.DeleteOptions{}}
	if body.DeleteOptions != nil {
		e.opts = body.DeleteOptions
	}
	switch {
	case len(e.opts.DryRun) == 0:
		e.opts.DryRun = r.Create.DryRun
	case len(r.Create.DryRun) == 0:
		r.Create.DryRun = e.opts.DryRun
	case !slices.Equal(e.opts.DryRun, r.Create.DryRun):
		return nil, apierrors.NewBadRequest("Non-matching dry-run options in request and content")
	}
	e.pinned = e.opts.Preconditions != nil && e.opts.Preconditions.ResourceVersion != nil &&
		*e.opts.Preconditions.ResourceVersion != ""
	for range maxEdits {
		again, err := e.once(ctx)
		if again && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		return success(), nil
	}
	return nil, apierrors.NewTimeoutError(fmt.Sprintf("couldn't evict pod %q due to conflicts", r.Target.Name), 10)
}

// once decides from the pod as it is now. again asks for another round, because
// the pod changed before it could be deleted.
func (e *eviction) once(ctx context.Context) (again bool, err error) {
	c, err := e.server.within(e.req, podsResource, e.req.Target.Name)
	if err != nil {
		return false, err
	}
	r, err := c.storage.read(ctx, c.req.Target.Namespace, c.req.Target.Name)
	if err != nil {
		return false, c.failed(err)
	}
	pod := r.obj.(*corev1.Pod)
	if free(pod) {
		err := e.remove(ctx, c, pod, pod.Status.Phase == corev1.PodPending && pod.DeletionTimestamp == nil)
		return apierrors.IsConflict(err) && !e.pinned && e.same(pod), err
	}
	budget, err := e.budget(ctx, pod)
	if err != nil {
		return false, err
	}
	unhealthy := budget != nil && !ready(pod) && spared(budget)
	if budget != nil && !unhealthy {
		if err := e.spend(ctx, budget.Name, pod.Name); err != nil {
			return false, err
		}
	}
	err = e.remove(ctx, c, pod, unhealthy)
	if apierrors.IsConflict(err) && unhealthy && !e.pinned {
		return false, busy(budget.Name)
	}
	return false, err
}

// same says that the pod is the one that the client wants to go: of another there is
// no use to try again.
func (e *eviction) same(pod *corev1.Pod) bool {
	p := e.opts.Preconditions
	return p == nil || p.UID == nil || *p.UID == pod.UID
}

// free says that a pod's eviction disrupts nobody.
func free(pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return pod.DeletionTimestamp != nil
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// spared says that a budget lets an unready pod go without counting it.
func spared(b *policyv1.PodDisruptionBudget) bool {
	if p := b.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// budget finds the one budget that covers the pod; nil when there is none.
func (e *eviction) budget(ctx context.Context, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	col, ok := e.server.table.Load().byResource[budgetsResource]
	if !ok {
		return nil, nil
	}
	snap, err := col.storage.fresh(ctx)
	if err != nil {
		return nil, interpret(err, col.gvr.GroupResource(), "")
	}
	var found []*policyv1.PodDisruptionBudget
	snap.Ascend(pod.Namespace+"/", "", func(entry *cache.Entry) bool {
		if b, ok := entry.Object().(*policyv1.PodDisruptionBudget); ok {
			sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err == nil && sel.Matches(labels.Set(pod.Labels)) {
				found = append(found, b)
			}
		}
		return true
	})
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, plainStatus(500, "",
		"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
}

// spend takes one disruption from the budget, or says why there is none.
func (e *eviction) spend(ctx context.Context, name, pod string) error {
	c, err := e.server.within(e.req, budgetsResource, name)
	if err != nil {
		return err
	}
	_, err = c.rewrite(ctx, copied(func(next kinds.Object) error {
		b := next.(*policyv1.PodDisruptionBudget)
		if err := affordable(b); err != nil {
			return err
		}
		b.Status.DisruptionsAllowed--
		if b.Status.DisruptionsAllowed == 0 {
			meta.SetStatusCondition(&b.Status.Conditions, metav1.Condition{
				Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse,
				Reason: policyv1.InsufficientPodsReason, ObservedGeneration: b.Generation,
				LastTransitionTime: e.server.now(),
			})
		}
		if b.Status.DisruptedPods == nil {
			b.Status.DisruptedPods = map[string]metav1.Time{}
		}
		b.Status.DisruptedPods[pod] = e.server.now()
		return nil
	}))
	return err
}

// affordable says why a budget allows no disruption, with upstream's cause.
func affordable(b *policyv1.PodDisruptionBudget) error {
	gr := schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudget"}
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return busy(b.Name)
	case b.Status.DisruptionsAllowed < 0:
		return blame(apierrors.NewForbidden(gr, b.Name, errors.New("pdb disruptions allowed is negative")),
			"The disruption budget %s does not allow evicting pods currently: pdb disruptions allowed is negative", b.Name)
	case len(b.Status.DisruptedPods) > maxDisrupted:
		return blame(apierrors.NewForbidden(gr, b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller")),
			"The disruption budget %s does not allow evicting pods currently: too many pending evictions not confirmed by PDB controller", b.Name)
	case b.Status.DisruptionsAllowed > 0:
		return nil
	}
	return blame(apierrors.NewTooManyRequests(overBudget, 0), "%s", shortage(b))
}

const overBudget = "Cannot evict pod as it would violate the pod's disruption budget."

// shortage explains a budget that is spent.
func shortage(b *policyv1.PodDisruptionBudget) string {
	c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
	told := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case told && c.Reason == policyv1.SyncFailedReason:
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %s", b.Name, c.Message)
	case b.Status.CurrentHealthy <= b.Status.DesiredHealthy:
		return fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
	case told:
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently (%s): %s", b.Name, c.Reason, c.Message)
	}
	return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently", b.Name)
}

// busy is 429: the budget's controller has not seen the latest yet.
func busy(name string) error {
	return blame(apierrors.NewTooManyRequests(overBudget, 10),
		"The disruption budget %s is still being processed by the server.", name)
}

func blame(err *apierrors.StatusError, format string, args ...any) error {
	if err.ErrStatus.Details == nil {
		err.ErrStatus.Details = &metav1.StatusDetails{}
	}
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...),
	})
	return err
}

// remove notes on the pod why it goes, and deletes it. pin makes the deletion
// fail when the pod has changed since it was judged.
func (e *eviction) remove(ctx context.Context, c *call, pod *corev1.Pod, pin bool) error {
	opts := e.opts.DeepCopy()
	if pin && !e.pinned {
		if opts.Preconditions == nil {
			opts.Preconditions = &metav1.Preconditions{}
		}
		opts.Preconditions.ResourceVersion = &pod.ResourceVersion
	}
	pin = pin || e.pinned
	if len(opts.DryRun) == 0 {
		noted, err := c.rewrite(ctx, copied(func(next kinds.Object) error {
			if err := checkPreconditions(c.kind, next, opts.Preconditions); err != nil {
				return err
			}
			setPodCondition(next.(*corev1.Pod), corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: e.server.now(),
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			})
			return nil
		}))
		if err != nil {
			return err
		}
		if pin {
			revision := noted.GetResourceVersion()
			opts.Preconditions.ResourceVersion = &revision
		}
	}
	c.req.Verb, c.req.Delete = verbDelete, *opts
	_, _, err := c.remove(ctx, pod.Name)
	return err
}
