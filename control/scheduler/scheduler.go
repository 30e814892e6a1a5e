// Package scheduler decides which node a pod runs on: it filters, scores and
// binds. One goroutine owns all that it knows of the cluster; informers and
// bindings under way post their news to it. A decision is a pure function of the
// pod and that view, and leaves a record that "sampan why" reads.
package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/timeline"
)

// DefaultName is the schedulerName of pods that ask for no other.
const DefaultName = corev1.DefaultSchedulerName

// maxBindings bounds the bindings that are being written at once.
const maxBindings = 64

// Config is all that a Scheduler needs.
type Config struct {
	// Name is the schedulerName of the pods that are ours.
	Name string
	// Transport is how it speaks to the API server, as system:kube-scheduler.
	Transport client.Transport
	// Filters and Scores are the profile, asked in this order.
	Filters []Filter
	Scores  []Score
	// Seed makes the choice between equal nodes repeatable.
	Seed uint64
	// Timeline gets the marks of the step "schedule"; it may be nil.
	Timeline *timeline.Recorder
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Scheduler places pods. Run does the work; Records may be read at any time.
type Scheduler struct {
	cfg     Config
	log     *slog.Logger
	rules   rules
	records *Records
	events  *client.Recorder
	mail    mailbox
	slots   chan struct{}

	pods       *informer.Informer[*corev1.Pod]
	nodes      *informer.Informer[*corev1.Node]
	namespaces *informer.Informer[*corev1.Namespace]
	budgets    *informer.Informer[*policyv1.PodDisruptionBudget]

	// Only Run's goroutine touches these.
	cluster *cluster
	queue   *queue
}

// New makes a Scheduler; nothing happens until Run.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Transport == nil {
		return nil, errors.New("scheduler: no transport given")
	}
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Scheduler{
		cfg: cfg, log: cfg.Log.With("component", "scheduler"), records: newRecords(),
		rules: rules{filters: cfg.Filters, scores: cfg.Scores, pick: rand.New(rand.NewPCG(cfg.Seed, 0))},
		mail:  mailbox{news: make(chan struct{}, 1)}, slots: make(chan struct{}, maxBindings),
		events:  client.NewRecorder(cfg.Transport, cfg.Name, ""),
		cluster: newCluster(), queue: newQueue(),
	}
	opts := informer.Options{Log: s.log}
	s.pods = informer.New(cfg.Transport, client.Pods, opts)
	s.nodes = informer.New(cfg.Transport, client.Nodes, opts)
	s.namespaces = informer.New(cfg.Transport, client.Namespaces, opts)
	s.budgets = informer.New(cfg.Transport, client.PodDisruptionBudgets, opts)
	s.pods.Subscribe(func(e informer.Event[*corev1.Pod]) { s.mail.post(func() { s.podChanged(e) }) })
	s.nodes.Subscribe(func(e informer.Event[*corev1.Node]) { s.mail.post(func() { s.nodeChanged(e) }) })
	s.namespaces.Subscribe(func(e informer.Event[*corev1.Namespace]) { s.mail.post(func() { s.namespaceChanged(e) }) })
	return s, nil
}

// Records are the decisions made so far.
func (s *Scheduler) Records() *Records { return s.records }

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	go func() { _ = s.nodes.Run(ctx) }()
	go func() { _ = s.namespaces.Run(ctx) }()
	go func() { _ = s.budgets.Run(ctx) }()
	// Nodes first: a pod held against half of them would be refused for nothing.
	for _, synced := range []<-chan struct{}{s.nodes.Synced(), s.namespaces.Synced(), s.budgets.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	go func() { _ = s.pods.Run(ctx) }()
	return s.loop(ctx)
}

// loop takes the news, then schedules one pod, and so on; with nothing to do it
// waits for news or for a back-off to end.
func (s *Scheduler) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mail.deliver()
		next, pending := s.queue.wake(time.Now())
		if w := s.queue.pop(); w != nil && ctx.Err() == nil {
			s.schedule(ctx, w)
			continue
		}
		wait := maxUnschedulable
		if pending {
			wait = time.Until(next)
		}
		timer.Reset(wait)
		select {
		case <-s.mail.news:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ours says whether a pod waits for this scheduler.
func (s *Scheduler) ours(p *corev1.Pod) bool {
	return p.Spec.SchedulerName == s.cfg.Name && p.Spec.NodeName == "" && p.DeletionTimestamp == nil && !terminal(p)
}

func terminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// podChanged brings a pod's new state into the view or the queue.
func (s *Scheduler) podChanged(e informer.Event[*corev1.Pod]) {
	pod := e.New
	if pod == nil || terminal(pod) {
		gone := e.Object()
		s.queue.drop(gone.UID)
		s.cluster.nominate(gone, "")
		if s.cluster.lift(gone.UID) {
			s.changed(Change{Kind: PodRemoved, Pod: gone})
		}
		return
	}
	if e.Old != nil && e.Old.UID != pod.UID { // recreated while we did not look
		s.podChanged(informer.Event[*corev1.Pod]{Old: e.Old})
	}
	if pod.Spec.NodeName != "" {
		s.queue.drop(pod.UID)
		s.cluster.nominate(pod, "")
		s.cluster.place(pod, pod.Spec.NodeName)
		if e.Old == nil || e.Old.Spec.NodeName == "" || !equalLabels(e.Old.Labels, pod.Labels) {
			s.changed(Change{Kind: PodPlaced, Pod: pod})
		}
		return
	}
	if !s.ours(pod) {
		s.queue.drop(pod.UID)
		s.cluster.nominate(pod, "")
		return
	}
	s.cluster.nominate(pod, pod.Status.NominatedNodeName)
	s.queue.put(pod, time.Now())
	if gated := s.queue.pods[pod.UID].gated; gated {
		s.holdBack(pod)
	}
}

// nodeChanged brings a node's new state into the view.
func (s *Scheduler) nodeChanged(e informer.Event[*corev1.Node]) {
	if e.New == nil {
		s.cluster.removeNode(e.Old.Name)
		return
	}
	s.cluster.setNode(e.New)
	if e.Old == nil {
		s.changed(Change{Kind: NodeAdded, Node: e.New})
		return
	}
	if !equalLabels(e.Old.Labels, e.New.Labels) {
		s.changed(Change{Kind: NodeLabels, Node: e.New})
	}
	if e.Old.Spec.Unschedulable != e.New.Spec.Unschedulable || !apiequality.Semantic.DeepEqual(e.Old.Spec.Taints, e.New.Spec.Taints) {
		s.changed(Change{Kind: NodeTaints, Node: e.New})
	}
	if !apiequality.Semantic.DeepEqual(e.Old.Status.Allocatable, e.New.Status.Allocatable) {
		s.changed(Change{Kind: NodeAllocatable, Node: e.New})
	}
}

func (s *Scheduler) namespaceChanged(e informer.Event[*corev1.Namespace]) {
	if e.New == nil {
		delete(s.cluster.namespaces, e.Old.Name)
		return
	}
	s.cluster.namespaces[e.New.Name] = e.New.Labels
}

// changed gives those pods another chance that a change may let in.
func (s *Scheduler) changed(c Change) {
	s.queue.help(time.Now(), func(w *waiting) bool {
		return s.rules.helps(w.pod, w.refused, c)
	})
}
