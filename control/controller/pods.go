package controller

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/reconcile"
)

// Unseen is how long to wait for one's own writes to show up in a mirror when no
// event brings the key back: a lost event costs at most this.
const Unseen = 30 * time.Second

// Pods creates and removes pods on behalf of an owner. It tells of each by an
// event about the owner, in upstream's words, and remembers it in Own, so that
// the next look at the owner waits for the mirror. It may be used from any
// goroutine.
type Pods struct {
	Transport client.Transport
	Events    *client.Recorder
	Own       *Own[*corev1.Pod]
}

// Create makes pod for owner. In a namespace that is ending, or has ended,
// nothing is made and that is no failure: nothing would live there.
func (p *Pods) Create(ctx context.Context, owner client.Object, pod *corev1.Pod) error {
	made, err := client.Pods.Create(ctx, p.Transport, pod)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		return nil
	case err != nil:
		p.Events.Eventf(owner, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	p.Own.Created(KeyOf(owner), made)
	p.Events.Eventf(owner, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
	return nil
}

// Delete removes pod, and no other of its name, for owner. That it is gone
// already is as good.
func (p *Pods) Delete(ctx context.Context, owner client.Object, pod *corev1.Pod) error {
	same := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	err := client.Pods.Delete(ctx, p.Transport, pod.Namespace, pod.Name, same)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // gone, or another pod of that name
		return nil
	case err != nil:
		p.Events.Eventf(owner, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("unable to delete pods: %w", err)
	}
	p.Own.Deleted(KeyOf(owner), pod)
	p.Events.Eventf(owner, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	return nil
}

// DeleteAll removes pods all at once and returns the first failure: the others
// are likely to say the same.
func (p *Pods) DeleteAll(ctx context.Context, owner client.Object, pods []*corev1.Pod) error {
	return AtOnce(len(pods), func(i int) error { return p.Delete(ctx, owner, pods[i]) })
}

// atOnce is how many calls AtOnce has under way at a time: enough for writes to share
// a sync of the disk, and so few that nodes get their word in beside a flood of pods.
const atOnce = 32

// AtOnce calls do(0) to do(n-1) at the same time, as far as there are not too many,
// waits for all and returns the first failure in order.
func AtOnce(n int, do func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(n, atOnce) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = do(i)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// InBatches calls do(0) to do(n-1) in batches that double, each at once, and
// stops after a batch in which one failed: when the first pod is refused because
// of a quota, hundreds of others need not be tried.
func InBatches(n int, do func(i int) error) error {
	for batch, done := 1, 0; done < n; batch *= 2 {
		batch = min(batch, n-done)
		if err := AtOnce(batch, func(i int) error { return do(done + i) }); err != nil {
			return err
		}
		done += batch
	}
	return nil
}

// PodOf is a pod as template describes it, controlled by owner and named after
// it. The template is copied.
func PodOf(template *corev1.PodTemplateSpec, owner metav1.Object, ref metav1.OwnerReference) *corev1.Pod {
	template = template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			GenerateName:    podPrefix(owner.GetName()),
			Labels:          template.Labels,
			Annotations:     template.Annotations,
			Finalizers:      template.Finalizers,
			OwnerReferences: []metav1.OwnerReference{ref},
		},
		Spec: template.Spec,
	}
}

// podPrefix is the owner's name and a dash, unless that cannot begin a name.
func podPrefix(owner string) string {
	if prefix := owner + "-"; len(validation.IsDNS1123Subdomain(prefix+"x")) == 0 {
		return prefix
	}
	return owner
}

// ClaimPods sorts out which of the orphans and of owner's own pods belong to it;
// see Claim. keep is asked first: pods that it refuses are not looked at.
func ClaimPods(ctx context.Context, claim *Claim[*corev1.Pod], own *Own[*corev1.Pod], keep func(*corev1.Pod) bool) ([]*corev1.Pod, error) {
	var candidates []*corev1.Pod
	for _, pod := range append(Owned(own.mirror, claim.Owner), Orphans(own.mirror, claim.Owner.GetNamespace())...) {
		if keep(pod) {
			candidates = append(candidates, pod)
		}
	}
	return claim.Sort(ctx, candidates)
}

// AvailableIn is how long a pod still has to stay ready to count as available, 0
// when it does now; false: it is not even ready.
func AvailableIn(pod *corev1.Pod, minReadySeconds int32, now time.Time) (time.Duration, bool) {
	ready, since := Ready(pod)
	switch {
	case !ready:
		return 0, false
	case minReadySeconds == 0:
		return 0, true
	case since.IsZero():
		return time.Duration(minReadySeconds) * time.Second, true
	}
	return max(0, since.Add(time.Duration(minReadySeconds)*time.Second).Sub(now)), true
}

// Available says whether a pod has been ready for long enough.
func Available(pod *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	wait, ready := AvailableIn(pod, minReadySeconds, now)
	return ready && wait == 0
}

// NextAvailable is when the next of pods becomes available, 0 when none is due.
func NextAvailable(pods []*corev1.Pod, minReadySeconds int32, now time.Time) time.Duration {
	var next time.Duration
	for _, pod := range pods {
		if wait, ready := AvailableIn(pod, minReadySeconds, now); ready {
			next = Sooner(next, wait)
		}
	}
	return next
}

// Sooner is the smaller of two waits, of which 0 means none.
func Sooner(a, b time.Duration) time.Duration {
	switch {
	case a <= 0:
		return max(b, 0)
	case b <= 0:
		return a
	}
	return min(a, b)
}

// Await is again, or Unseen if that is sooner and own writes for key are still
// to be seen.
func (o *Own[T]) Await(key reconcile.Key, again time.Duration) time.Duration {
	if o.Seen(key) {
		return again
	}
	return Sooner(again, Unseen)
}
