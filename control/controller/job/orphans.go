package job

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// orphans takes the tracking finalizer off pods that no unfinished job will
// count any more, so that they can go. Its keys are pods.
type orphans struct {
	*Controller
	loop *reconcile.Loop
}

func newOrphans(c *Controller, cfg reconcile.Config) *orphans {
	o := &orphans{Controller: c}
	o.loop = reconcile.NewLoop(o, cfg)
	return o
}

// Name implements reconcile.Reconciler.
func (*orphans) Name() string { return "job-orphan" }

// Reads implements reconcile.Reconciler.
func (o *orphans) Reads() []schema.GroupVersionResource { return o.Controller.Reads() }

// podChanged looks at a pod that may have been left behind.
func (o *orphans) podChanged(e informer.Event[*corev1.Pod]) {
	if e.New != nil && tracked(e.New) && o.suspect(e.New) {
		o.loop.Enqueue(controller.KeyOf(e.New))
	}
}

// of looks, after a while, at all pods of a job that is gone or has finished.
func (o *orphans) of(job *batchv1.Job, after time.Duration) {
	for _, pod := range controller.Owned(o.pods, job) {
		if tracked(pod) {
			o.loop.EnqueueAfter(controller.KeyOf(pod), after)
		}
	}
}

// suspect says whether, by the mirror, no job will count pod.
func (o *orphans) suspect(pod *corev1.Pod) bool {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return true
	}
	if ref.Kind != client.Jobs.Kind || ref.APIVersion != batchv1.SchemeGroupVersion.String() {
		return false
	}
	job, ok := o.jobs.Get(pod.Namespace, ref.Name)
	return !ok || job.UID != ref.UID || finished(job) && !foreign(job)
}

// Reconcile implements reconcile.Reconciler. The mirror of jobs may be behind
// that of pods: that a job is not there is asked of the server.
func (o *orphans) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := o.pods.Get(key.Namespace, key.Name)
	if !ok || !tracked(pod) || !o.suspect(pod) {
		return 0, nil
	}
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		job, err := client.Jobs.Get(ctx, o.transport, pod.Namespace, ref.Name)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return 0, err
		case job.UID == ref.UID && (!finished(job) || foreign(job)):
			return controller.Unseen, nil
		}
	}
	// On condition that nobody has adopted it meanwhile, who would count on it.
	_, err := untrack(ctx, o.transport, pod, map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion})
	return 0, err
}
