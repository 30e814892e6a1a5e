// Package cronjob keeps a promise: a CronJob's jobs are started at their times,
// and old ones removed. It follows upstream's pkg/controller/cronjob in names,
// missed times, status and events; what it decides is in decide, without any
// I/O. A job's name is made of its time, so that whatever happens none is started
// twice.
package cronjob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

// component is the user and the source of events, as upstream's.
const component = "cronjob-controller"

// Controller starts jobs by the clock.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	cronJobs  *informer.Informer[*batchv1.CronJob]
	jobs      *informer.Informer[*batchv1.Job]
	own       *controller.Own[*batchv1.CronJob]
	ownJobs   *controller.Own[*batchv1.Job]
	log       *slog.Logger
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		cronJobs:  controller.Mirror(cfg.Mirrors, client.CronJobs),
		jobs:      controller.Mirror(cfg.Mirrors, client.Jobs),
		log:       cfg.Log,
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.own, c.ownJobs = controller.NewOwn(c.cronJobs), controller.NewOwn(c.jobs)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexOwners(c.jobs)
	c.cronJobs.Subscribe(c.changed)
	c.jobs.Subscribe(controller.EnqueueOwner[*batchv1.Job](client.CronJobs.Kind, batchv1.GroupName, c.loop.Enqueue))
	return c, nil
}

// changed looks at a cron job now, unless it is its schedule that has changed: then at
// the next time of that, as upstream. Who puts a daily job forward at noon, from eight in
// the evening to eight in the morning, does not mean this morning.
func (c *Controller) changed(e informer.Event[*batchv1.CronJob]) {
	key := controller.KeyOf(e.Object())
	if e.Old == nil || e.New == nil || e.Old.UID != e.New.UID ||
		e.Old.Spec.Schedule == e.New.Spec.Schedule && equality.Semantic.DeepEqual(e.Old.Spec.TimeZone, e.New.Spec.TimeZone) {
		c.loop.Enqueue(key)
		return
	}
	s, err := parse(&e.New.Spec)
	if err != nil {
		c.loop.Enqueue(key) // to say so
		return
	}
	if wait := s.wait(e.New, time.Now()); wait > 0 {
		c.loop.EnqueueAfter(key, wait)
	}
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "cronjob" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.CronJobs.GroupVersionResource, client.Jobs.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.CronJobs.GroupVersionResource, Part: reconcile.Status},
		{Resource: client.Jobs.GroupVersionResource, Part: reconcile.Create},
		{Resource: client.Jobs.GroupVersionResource, Part: reconcile.Delete},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	cj, ok := c.cronJobs.Get(key.Namespace, key.Name)
	if !ok {
		c.own.Forget(key)
		c.ownJobs.Forget(key)
		return 0, nil
	}
	if !c.own.Seen(key) || !c.ownJobs.Seen(key) {
		return controller.Unseen, nil // the event that shows it brings the key back
	}
	jobs, err := c.jobsOf(ctx, cj, controller.Owned(c.jobs, cj))
	if err != nil {
		return 0, err
	}
	p := decide(cj, jobs, time.Now())
	for _, n := range p.news {
		c.events.Event(cj, n.eventtype, n.reason, n.message)
	}
	doErr := c.do(ctx, cj, &p)
	statusErr := c.writeStatus(ctx, cj, p.status)
	return c.ownJobs.Await(key, p.again), errors.Join(doErr, statusErr)
}

// do carries out p and notes in its status what has been done.
func (c *Controller) do(ctx context.Context, cj *batchv1.CronJob, p *plan) error {
	var errs []error
	for _, j := range p.old {
		errs = append(errs, c.remove(ctx, cj, j, p))
	}
	for _, j := range p.replace {
		if err := c.remove(ctx, cj, j, p); err != nil {
			return errors.Join(append(errs, fmt.Errorf("could not replace job %s/%s", j.Namespace, j.Name))...)
		}
	}
	if !p.start.IsZero() {
		errs = append(errs, c.start(ctx, cj, p))
	}
	return errors.Join(errs...)
}

func (c *Controller) remove(ctx context.Context, cj *batchv1.CronJob, j *batchv1.Job, p *plan) error {
	background := metav1.DeletePropagationBackground
	err := client.Jobs.Delete(ctx, c.transport, j.Namespace, j.Name,
		metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &j.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		c.events.Eventf(cj, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		return fmt.Errorf("delete job %q: %w", j.Name, err)
	}
	p.drop(j.UID)
	if err == nil {
		c.ownJobs.Deleted(controller.KeyOf(cj), j)
		c.events.Eventf(cj, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", j.Name)
	}
	return nil
}

// start makes the job for the plan's time. One that is there already was made by
// an earlier round, or another leader, whose status was not written.
func (c *Controller) start(ctx context.Context, cj *batchv1.CronJob, p *plan) error {
	made, err := client.Jobs.Create(ctx, c.transport, jobFor(cj, p.start))
	switch {
	case apierrors.IsAlreadyExists(err):
		made, err = client.Jobs.Get(ctx, c.transport, cj.Namespace, jobName(cj, p.start))
		if err != nil {
			return fmt.Errorf("read job %q: %w", jobName(cj, p.start), err)
		}
		if !metav1.IsControlledBy(made, cj) {
			return nil // somebody else's; the next time has another name
		}
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // nothing that we make would live
	case err != nil:
		c.events.Eventf(cj, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return fmt.Errorf("create job: %w", err)
	default:
		c.ownJobs.Created(controller.KeyOf(cj), made)
		measure.From(ctx).CronJobStarted(made.CreationTimestamp.Sub(p.start))
		c.events.Eventf(cj, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %v", made.Name)
	}
	if endOf(made) == "" && !slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == made.UID }) {
		p.status.Active = append(p.status.Active, reference(made))
	}
	p.status.LastScheduleTime = &metav1.Time{Time: p.start}
	return nil
}

// writeStatus stores status when it says something new.
func (c *Controller) writeStatus(ctx context.Context, cj *batchv1.CronJob, status batchv1.CronJobStatus) error {
	if equality.Semantic.DeepEqual(cj.Status, status) {
		return nil
	}
	next := cj.DeepCopy()
	next.Status = status
	stored, err := client.CronJobs.UpdateStatus(ctx, c.transport, next)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status of cron job %q: %w", cj.Name, err)
	}
	c.own.Wrote(controller.KeyOf(cj), stored)
	return nil
}
