// Package job keeps a promise: a Job's pods run until enough of them have
// succeeded, or too many failed, and each of them is counted exactly once. It
// follows upstream's pkg/controller/job in counts, conditions, messages and
// events.
//
// Exactness rests on the finalizer batch.kubernetes.io/job-tracking: a pod that
// has ended stays until the job's status names it, and is counted when the
// finalizer is gone. A crash between any two writes leaves books from which the
// next round goes on; a round begins only once the mirrors show what the last
// one wrote.
package job

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// component is the user and the source of events, as upstream's.
	component = "job-controller"
	// batch is the shortest time between two rounds of a job that pods bring
	// about: a thousand pods that end together make a few writes, not a thousand.
	batch = time.Second
)

// Controller runs jobs.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	orphans   *orphans
	jobs      *informer.Informer[*batchv1.Job]
	pods      *informer.Informer[*corev1.Pod]
	ownJobs   *controller.Own[*batchv1.Job]
	ownPods   *controller.Own[*corev1.Pod]
	hands     controller.Pods
	measured  atomic.Pointer[measure.Metrics] // of the context that it runs in

	mu     sync.Mutex
	memory map[reconcile.Key]memory
}

// memory is what is known of a job from earlier rounds.
type memory struct {
	streak streak
	looked time.Time
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		jobs:      controller.Mirror(cfg.Mirrors, client.Jobs),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		memory:    map[reconcile.Key]memory{},
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.ownJobs, c.ownPods = controller.NewOwn(c.jobs), controller.NewOwn(c.pods)
	c.hands = controller.Pods{Transport: c.transport, Events: c.events, Own: c.ownPods}
	synced := cfg.Mirrors.Synced(c.Reads()...)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: synced})
	c.orphans = newOrphans(c, reconcile.Config{Log: cfg.Log, Synced: synced})

	controller.IndexOwners(c.jobs)
	controller.IndexOwners(c.pods)
	c.jobs.Subscribe(c.jobChanged)
	c.pods.Subscribe(controller.EnqueueOwner[*corev1.Pod](client.Jobs.Kind, batchv1.GroupName, c.soon))
	c.pods.Subscribe(controller.EnqueueAdopters(c.jobs, func(j *batchv1.Job) *metav1.LabelSelector { return j.Spec.Selector }, c.soon))
	c.pods.Subscribe(c.orphans.podChanged)
	c.pods.Subscribe(c.trackedChanged)
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "job" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Jobs.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Jobs.GroupVersionResource, Part: reconcile.Status},
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Create},
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.Pods.GroupVersionResource, Part: "metadata.ownerReferences[Job]"},
		{Resource: client.Pods.GroupVersionResource, Part: fmt.Sprintf("metadata.finalizers[%s]", batchv1.JobTrackingFinalizer)},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error {
	c.measured.Store(measure.From(ctx))
	var both sync.WaitGroup
	both.Go(func() { _ = c.orphans.loop.Run(ctx) }) // ends only with ctx
	err := c.loop.Run(ctx)
	both.Wait()
	return err
}

func (c *Controller) jobChanged(e informer.Event[*batchv1.Job]) {
	key := controller.KeyOf(e.Object())
	switch {
	case e.New == nil:
		c.orphans.of(e.Old, 0)
	case finished(e.New):
		c.orphans.of(e.New, batch) // the books have let go of them: the mirror may not show it yet
	}
	if e.Old != nil && e.New != nil && e.Old.Generation == e.New.Generation && e.Old.DeletionTimestamp.Equal(e.New.DeletionTimestamp) {
		c.soon(key)
		return
	}
	c.loop.Enqueue(key)
}

// soon looks at a job now, or a batch after the last look.
func (c *Controller) soon(key reconcile.Key) {
	c.mu.Lock()
	looked := c.memory[key].looked
	c.mu.Unlock()
	c.loop.EnqueueAfter(key, batch-time.Since(looked))
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (again time.Duration, err error) {
	job, ok := c.jobs.Get(key.Namespace, key.Name)
	if !ok || finished(job) {
		c.forget(key)
		return 0, nil
	}
	if foreign(job) {
		return 0, nil
	}
	action := measure.Reconciling
	defer func(began time.Time) { measure.From(ctx).JobSynced(job, action, err, began) }(time.Now())
	if !c.ownJobs.Seen(key) || !c.ownPods.Seen(key) {
		return controller.Unseen, nil // the event that shows it brings the key back
	}
	pods, err := c.claim(ctx, job)
	if err != nil {
		return 0, err
	}
	if pods, err = c.confirm(ctx, job, pods); err != nil {
		return 0, err
	}
	r := begin(job, pods, c.recall(key), time.Now())
	m := r.moves()
	action = m.action()
	o, doErr := c.do(ctx, job, m)
	if err := c.account(ctx, key, r, m, o); err != nil {
		return 0, fmt.Errorf("tracking status: %w", err)
	}
	return c.ownPods.Await(key, m.again), doErr
}

// action is what metrics call them.
func (m *moves) action() string {
	switch {
	case len(m.create) > 0:
		return measure.PodsCreated
	case len(m.remove) > 0:
		return measure.PodsDeleted
	case m.managed:
		return measure.Tracking
	}
	return measure.Reconciling
}

// trackedChanged counts the pods that have ended and are held for the books.
func (c *Controller) trackedChanged(e informer.Event[*corev1.Pod]) {
	held := func(p *corev1.Pod) bool {
		return p != nil && tracked(p) && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed)
	}
	if was, is := held(e.Old), held(e.New); was != is {
		c.measured.Load().PodTracked(is)
	}
}

// recall returns the failures in a row and notes that the job is looked at.
func (c *Controller) recall(key reconcile.Key) streak {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.memory[key]
	m.looked = time.Now()
	c.memory[key] = m
	return m.streak
}

func (c *Controller) remember(key reconcile.Key, s streak) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.memory[key]
	m.streak = s
	c.memory[key] = m
}

func (c *Controller) forget(key reconcile.Key) {
	c.mu.Lock()
	delete(c.memory, key)
	c.mu.Unlock()
	c.ownJobs.Forget(key)
	c.ownPods.Forget(key)
}

// claim returns the pods of job, after adopting and releasing.
func (c *Controller) claim(ctx context.Context, job *batchv1.Job) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("job %q has an invalid selector: %w", job.Name, err)
	}
	claim := controller.Claim[*corev1.Pod]{
		Transport: c.transport, Resource: client.Pods, Owner: job, OwnerKind: client.Jobs.GVK(), Selector: selector,
		Finalizers: []string{batchv1.JobTrackingFinalizer},
		Confirm: func(ctx context.Context) (client.Object, error) {
			return client.Jobs.Get(ctx, c.transport, job.Namespace, job.Name)
		},
	}
	return controller.ClaimPods(ctx, &claim, c.ownPods, func(*corev1.Pod) bool { return true })
}

// foreign says whether somebody else manages job.
func foreign(job *batchv1.Job) bool {
	return job.Spec.ManagedBy != nil && *job.Spec.ManagedBy != batchv1.JobControllerName
}
