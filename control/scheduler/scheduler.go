// Package scheduler decides which node a pod runs on: it filters, scores and
// binds. One goroutine owns all that it knows of the cluster; informers and
// bindings under way post their news to it. A decision is a pure function of the
// pod and that view, and leaves a record that "sampan why" reads.
package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/timeline"
)

// DefaultName is the schedulerName of pods that ask for no other.
const DefaultName = corev1.DefaultSchedulerName

// maxBindings bounds the writes under way at once: enough that the store can
// make many durable together.
const maxBindings = 128

// Profile is one way of scheduling; pods choose theirs by schedulerName.
type Profile struct {
	// Name is the schedulerName of its pods; DefaultName when empty.
	Name string
	// Filters and Scores are asked in this order.
	Filters []Filter
	Scores  []Score
	// PercentageOfNodesToScore bounds the search for feasible nodes; 0 adapts to
	// the size of the cluster.
	PercentageOfNodesToScore int32
	// NoPreemption: nobody is evicted for a pod.
	NoPreemption bool
	// MinCandidateNodesPercentage and MinCandidateNodesAbsolute say on how many
	// nodes a preemption is tried out; both 0 mean upstream's 10 % and 100.
	MinCandidateNodesPercentage, MinCandidateNodesAbsolute int32
}

// Config is all that a Scheduler needs.
type Config struct {
	// Profiles are the ways of scheduling; there must be one.
	Profiles []Profile
	// Extenders have a say in every profile.
	Extenders []Extender
	// InitialBackoff and MaxBackoff bound the delay of a pod that did not fit;
	// upstream's second and ten seconds when 0.
	InitialBackoff, MaxBackoff time.Duration
	// Gangs has pod groups heeded (scheduling.k8s.io/v1beta1, upstream's gate
	// GenericWorkload): the API server must serve them.
	Gangs bool
	// Transport is how it speaks to the API server, as system:kube-scheduler.
	Transport client.Transport
	// Seed makes the choice between equal nodes repeatable.
	Seed uint64
	// Timeline gets the marks of the step "schedule"; it may be nil.
	Timeline *timeline.Recorder
	// Metrics count what is done; nobody sees them when nil.
	Metrics *Metrics
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Scheduler places pods. Run does the work; Records may be read at any time.
type Scheduler struct {
	cfg      Config
	log      *slog.Logger
	profiles map[string]*rules
	events   map[string]*client.Recorder
	records  *Records
	mail     mailbox
	slots    chan struct{} // taken by the goroutines that write
	jobs     chan func()
	end      <-chan struct{} // of Run
	turns    turns
	metrics  *Metrics

	pods       *informer.Informer[*corev1.Pod]
	nodes      *informer.Informer[*corev1.Node]
	namespaces *informer.Informer[*corev1.Namespace]
	budgets    *informer.Informer[*policyv1.PodDisruptionBudget]
	storage    *storageMirror
	devices    *deviceMirror
	groups     *informer.Informer[*schedulingv1beta1.PodGroup] // nil without gangs
	owners     *ownerMirror

	// Only Run's goroutine touches these.
	cluster *cluster
	queue   *queue
	gangs   *gangs // nil without gangs
}

// New makes a Scheduler; nothing happens until Run.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Transport == nil {
		return nil, errors.New("scheduler: no transport given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Scheduler{
		cfg: cfg, log: cfg.Log.With("component", "scheduler"), records: newRecords(),
		profiles: map[string]*rules{}, events: map[string]*client.Recorder{},
		mail: mailbox{news: make(chan struct{}, 1)}, slots: make(chan struct{}, maxBindings), jobs: make(chan func()), turns: turns{after: map[types.UID][]func(){}},
		cluster: newCluster(), queue: newQueue(cmp.Or(cfg.InitialBackoff, backoffMin), cmp.Or(cfg.MaxBackoff, backoffMax)),
	}
	if s.metrics = cfg.Metrics; s.metrics == nil {
		s.metrics = NewMetrics()
	}
	s.queue.incoming = s.metrics.came()
	if cfg.Gangs {
		s.gangs = newGangs()
	}
	if err := s.addProfiles(); err != nil {
		return nil, err
	}
	opts := informer.Options{Log: s.log}
	s.pods = informer.New(cfg.Transport, client.Pods, opts)
	s.nodes = informer.New(cfg.Transport, client.Nodes, opts)
	s.namespaces = informer.New(cfg.Transport, client.Namespaces, opts)
	s.budgets = informer.New(cfg.Transport, client.PodDisruptionBudgets, opts)
	s.pods.Subscribe(func(e informer.Event[*corev1.Pod]) { s.mail.post(func() { s.podChanged(e) }) })
	s.nodes.Subscribe(func(e informer.Event[*corev1.Node]) { s.mail.post(func() { s.nodeChanged(e) }) })
	s.namespaces.Subscribe(func(e informer.Event[*corev1.Namespace]) { s.mail.post(func() { s.namespaceChanged(e) }) })
	s.storage = newStorageMirror(cfg.Transport, opts, func(c Change) { s.mail.post(func() { s.changed(c) }) })
	s.devices = s.newDeviceMirror(opts)
	if s.gangs != nil {
		s.groups = informer.New(cfg.Transport, client.PodGroups, opts)
		s.groups.Subscribe(func(e informer.Event[*schedulingv1beta1.PodGroup]) { s.mail.post(func() { s.groupChanged(e) }) })
	}
	s.owners = newOwnerMirror(cfg.Transport, opts, func() { s.mail.post(s.ownersChanged) })
	s.cluster.storage, s.cluster.selector = s.storage, s.owners.selector
	return s, nil
}

// addProfiles makes the rules of each profile.
func (s *Scheduler) addProfiles() error {
	if len(s.cfg.Profiles) == 0 {
		return errors.New("scheduler: no profile given")
	}
	for i, p := range s.cfg.Profiles {
		name := cmp.Or(p.Name, DefaultName)
		if _, twice := s.profiles[name]; twice {
			return fmt.Errorf("scheduler: profile %q is given twice", name)
		}
		s.profiles[name] = &rules{
			filters: p.Filters, scores: p.Scores, percentage: p.PercentageOfNodesToScore, extenders: s.cfg.Extenders,
			preempting: preempting{off: p.NoPreemption, percent: p.MinCandidateNodesPercentage, absolute: p.MinCandidateNodesAbsolute},
			pick:       rand.New(rand.NewPCG(s.cfg.Seed, uint64(i))),
		}
		if s.gangs != nil {
			s.profiles[name].filters = append(slices.Clone(p.Filters), gate{s.gangs})
		}
		s.events[name] = client.NewRecorder(s.cfg.Transport, name, "")
	}
	return nil
}

// Records are the decisions made so far.
func (s *Scheduler) Records() *Records { return s.records }

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	s.end = ctx.Done()
	go func() { _ = s.nodes.Run(ctx) }()
	go func() { _ = s.namespaces.Run(ctx) }()
	go func() { _ = s.budgets.Run(ctx) }()
	// Nodes first: a pod held against half of them would be refused for nothing.
	synced := []<-chan struct{}{s.nodes.Synced(), s.namespaces.Synced(), s.budgets.Synced()}
	synced = append(synced, s.storage.run(ctx)...)
	synced = append(synced, s.owners.run(ctx)...)
	synced = append(synced, s.devices.run(ctx)...)
	if s.groups != nil {
		synced = append(synced, follow(ctx, s.groups))
	}
	for _, done := range synced {
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	go func() { _ = s.pods.Run(ctx) }()
	// And all pods that have a node, before any other gets one.
	select {
	case <-s.pods.Synced():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.loop(ctx)
}

// loop takes the news, then schedules one pod, and so on; with nothing to do it
// waits for news or for a back-off to end.
func (s *Scheduler) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer s.metrics.follow(s)()
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
