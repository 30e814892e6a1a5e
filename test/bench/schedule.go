package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
	"github.com/sampan-dev/sampan/control/store/etcd"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pace"
	"github.com/sampan-dev/sampan/internal/pki"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

const (
	// creators make pods at the same time, as upstream's benchmark does.
	creators = 30
	// queuedPods are made while the scheduler is away, to see it alone.
	queuedPods = 2000
	// workloadTimeout bounds one workload.
	workloadTimeout = 5 * time.Minute
)

// schedule runs upstream's scheduler_perf workloads: nodes and pods are made
// through the API server of this process, over a durable etcd, and pods count once
// they are bound in the store. WORKLOAD names those to run, with commas between them;
// NODES gives them another number of nodes than upstream's.
func schedule(ctx context.Context) (rows []row, err error) {
	defer pace.Keep()() // as "sampan up" does
	only, nodes := os.Getenv("WORKLOAD"), 0
	if text := os.Getenv("NODES"); text != "" {
		if nodes, err = strconv.Atoi(text); err != nil || nodes <= 0 {
			return nil, fmt.Errorf("NODES is %q, not a number of nodes", text)
		}
	}
	for _, w := range workloads() {
		if only != "" && !slices.Contains(strings.Split(only, ","), w.name) {
			continue
		}
		w.nodes = cmp.Or(nodes, w.nodes)
		r, err := w.measure(ctx)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", w.name, err)
		}
		rows = append(rows, r)
		fmt.Fprintf(os.Stderr, "%s: %s\n", r.what, r.value)
	}
	return rows, nil
}

// arena is a control plane with nothing but a scheduler.
type arena struct {
	client.Transport
	server *apiserver.Server
	bound  atomic.Int64
	news   chan struct{}
	stop   func()
	pause  func()
}

// open starts store, API server and scheduler.
func open(ctx context.Context) (*arena, error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-sched-*")
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	objects, err := etcd.Start(ctx, etcd.EmbedConfig{Dir: filepath.Join(dir, "etcd"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	a := &arena{news: make(chan struct{}, 1), stop: func() {
		cancel()
		running.Wait()
		_ = objects.Close()
		os.RemoveAll(dir)
	}}
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		return nil, err
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		return nil, err
	}
	a.server, err = apiserver.New(apiserver.Config{Store: objects.Store(), Kinds: kindtable.Kinds(), Authority: authority, TokenKey: tokens, Log: log})
	if err != nil {
		return nil, err
	}
	running.Go(func() { _ = a.server.Run(ctx) })
	<-a.server.Ready()
	a.Transport = a.server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	pods := informer.New(a.Transport, client.Pods, informer.Options{Log: log})
	pods.Subscribe(a.seen)
	running.Go(func() { _ = pods.Run(ctx) })
	<-pods.Synced()
	return a, a.begin(ctx, log)
}

// begin starts the scheduler; pause stops it.
func (a *arena) begin(ctx context.Context, log *slog.Logger) error {
	s, err := scheduler.New(scheduler.Config{
		Transport: a.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}}),
		Profiles:  profile.Default(), Seed: 1, Log: log,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	a.pause = func() {
		cancel()
		<-done
	}
	return nil
}

// seen counts the pods that get a node, for those marked as measured.
func (a *arena) seen(e informer.Event[*corev1.Pod]) {
	if e.New == nil || e.New.Spec.NodeName == "" || e.Old != nil && e.Old.Spec.NodeName != "" || e.New.Annotations["churn"] != "" {
		return
	}
	a.bound.Add(1)
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// until waits for so many pods to be bound.
func (a *arena) until(ctx context.Context, n int64) error {
	for a.bound.Load() < n {
		select {
		case <-a.news:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods bound: %w", a.bound.Load(), n, context.Cause(ctx))
		}
	}
	return nil
}

// each makes n things with several clients at once.
func each(ctx context.Context, n int, do func(context.Context, int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range creators {
		all.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= n || failed.Load() != nil {
					return
				}
				if err := do(ctx, i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// namespace makes a namespace as its controllers would have it.
func (a *arena) namespace(ctx context.Context, name string, labels map[string]string) error {
	if name != metav1.NamespaceDefault {
		if _, err := client.Namespaces.Create(ctx, a, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}); err != nil {
			return err
		}
	}
	_, err := client.ServiceAccounts.Create(ctx, a, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}})
	return err
}

// queued binds pods that are all there when the scheduler starts, and returns how
// many a second, from the first that is bound to the last.
func (a *arena) queued(ctx context.Context, s step, total *int64) (float64, error) {
	a.pause()
	if err := a.make(ctx, s, total); err != nil {
		return 0, err
	}
	before := a.bound.Load()
	if err := a.begin(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return 0, err
	}
	if err := a.until(ctx, before+1); err != nil {
		return 0, err
	}
	first, start := a.bound.Load(), time.Now()
	if err := a.until(ctx, *total); err != nil {
		return 0, err
	}
	return float64(a.bound.Load()-first) / time.Since(start).Seconds(), nil
}

// pods makes pods and waits until they are bound.
func (a *arena) pods(ctx context.Context, s step, total *int64) error {
	if err := a.make(ctx, s, total); err != nil {
		return err
	}
	return a.until(ctx, *total)
}

// make makes pods, several at a time.
func (a *arena) make(ctx context.Context, s step, total *int64) error {
	first := *total
	*total += int64(s.pods)
	return each(ctx, s.pods, func(ctx context.Context, i int) error {
		p := s.template(s.namespaces[i%len(s.namespaces)])
		p.Name = fmt.Sprintf("pod-%d", first+int64(i))
		_, err := client.Pods.Create(ctx, a, p)
		return err
	})
}

// measure runs one workload.
func (w workload) measure(ctx context.Context) (row, error) {
	ctx, cancel := context.WithTimeout(ctx, workloadTimeout)
	defer cancel()
	a, err := open(ctx)
	if err != nil {
		return row{}, err
	}
	defer a.stop()
	if err := w.prepare(ctx, a); err != nil {
		return row{}, err
	}
	var total int64
	for _, s := range w.init {
		if err := a.pods(ctx, s, &total); err != nil {
			return row{}, fmt.Errorf("initial pods: %w", err)
		}
	}
	churning, still := context.WithCancel(ctx)
	defer still()
	if w.churn != nil {
		go w.churn(churning, a)
	}
	profiled, err := profiling()
	if err != nil {
		return row{}, err
	}
	before := billed()
	err = a.pods(ctx, w.measured, &total)
	after := billed()
	profiled()
	if err != nil {
		return row{}, err
	}
	again := w.measured
	again.pods = min(again.pods, queuedPods)
	if w.apart { // no more than there are nodes left
		again.pods = min(again.pods, w.nodes-int(total))
	}
	held := 0.0
	if again.pods > 0 {
		if held, err = a.queued(ctx, again, &total); err != nil {
			return row{}, fmt.Errorf("queued pods: %w", err)
		}
	}
	rate := float64(w.measured.pods) / after.at.Sub(before.at).Seconds()
	return row{
		fmt.Sprintf("%s, %d nodes, %d pods", w.name, w.nodes, w.measured.pods),
		fmt.Sprintf("%.0f pods/s %s; %.1f times the floor; %.0f a second of %d that wait in line",
			rate, after.since(before, w.measured.pods), rate/w.floor, held, again.pods),
		fmt.Sprintf("floor %.0f", w.floor),
	}, nil
}
