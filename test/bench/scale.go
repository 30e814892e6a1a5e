package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

var (
	scaleNodes = flag.Int("nodes", 5000, "scale: how many hollow nodes")
	scalePods  = flag.Int("pods", 50_000, "scale: how many pods")
	scaleRate  = flag.Float64("rate", 60, "scale: how many pods a second are asked for; 0 for as many as the cluster takes")
	scaleLimit = flag.Duration("limit", 20*time.Minute, "scale: when to stop and tell what was reached; what follows takes a minute or two")
)

const (
	// perDeployment is the size of upstream's medium deployments.
	perDeployment = 30
	// outstanding is how many pods may be on their way: a cluster that can't keep up
	// with the rate slows it down, and the rate that was reached is told.
	outstanding = 300
	// restFor is how long nothing happens, in the end, but heartbeats.
	restFor = 30 * time.Second
	// weighEvery is how often the two processes are weighed.
	weighEvery = 2 * time.Second
	// Both processes together may have 8 GiB: each is told its part, and what is left
	// are the files that the server has mapped. So what is dead is collected before
	// that is used up, and not much sooner.
	serverHeap, nodesHeap = "GOMEMLIMIT=3840MiB", "GOMEMLIMIT=2816MiB"
	// profilesAt is where the process of the nodes shows its profiles, within the
	// network namespace of the benchmark.
	profilesAt = "127.0.0.1:6060"
	// hollowLabel is what hollow nodes have.
	hollowLabel = "hollow.sampan.dev/node"
)

// scaled is a cluster of hollow nodes and what is seen of it.
type scaled struct {
	*cluster
	nodes       *exec.Cmd
	ready, lost atomic.Int64 // nodes that are; how often one stopped to be
	running     atomic.Int64 // pods that are ready
	heaviest    atomic.Int64 // kB that both processes had at once, mapped files included
	changed     chan struct{}
	readyOf     map[string]int64 // only the informer's goroutine
	beside      beside
}

// scale joins hollow nodes and fills them with pods, and measures what the API
// answers meanwhile, whether heartbeats are kept, and what it all weighs. It tells
// what was reached when its time is over.
func scale(whole context.Context) (rows []row, err error) {
	ctx, cancel := context.WithTimeout(whole, *scaleLimit)
	defer cancel()
	name, value, _ := strings.Cut(serverHeap, "=")
	if err := os.Setenv(name, value); err != nil { // for the processes that are started
		return nil, err
	}
	defer func() { _ = os.Unsetenv(name) }()
	c, err := up(whole, "--cluster-cidr", "10.128.0.0/9", "--pod-cidr", "10.128.0.0/24")
	if err != nil {
		return nil, err
	}
	s := &scaled{cluster: c, changed: make(chan struct{}, 1), readyOf: map[string]int64{}}
	defer func() { err = errors.Join(err, s.end(whole)) }()
	following, stop := context.WithCancel(whole)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { s.followNodes(following) })
	all.Go(func() { s.followDeployments(following) })
	all.Go(func() {
		if err := s.beside.watch(following, c.dir); err != nil {
			fmt.Fprintln(os.Stderr, "the disk is not asked any more:", err)
		}
	})
	before, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.join(whole); err != nil {
		return nil, err
	}
	all.Go(func() { s.weigh(following) })
	part, last, err := s.phase(ctx, fmt.Sprintf("%d hollow nodes", *scaleNodes), before, func(ctx context.Context) string {
		ctx, cancel := context.WithTimeout(ctx, *scaleLimit/3) // the rest is for pods, on what nodes there are
		defer cancel()
		s.until(ctx, func() bool { return s.ready.Load() >= int64(*scaleNodes) })
		return fmt.Sprintf("%d Ready", s.ready.Load())
	})
	if rows = append(rows, part...); err != nil {
		return rows, err
	}
	name = fmt.Sprintf("%d pods in deployments of %d, %g a second", *scalePods, perDeployment, *scaleRate)
	part, last, err = s.phase(ctx, name, last, s.fill)
	if rows = append(rows, part...); err != nil {
		return rows, err
	}
	part, _, err = s.phase(whole, "at rest", last, func(ctx context.Context) string {
		_ = pause(ctx, restFor)
		return fmt.Sprintf("%d nodes Ready, %d pods ready", s.ready.Load(), s.running.Load())
	})
	rows = append(rows, part...)
	return append(rows, row{"load of the machine meanwhile", load(), ""}), err
}

// join starts the process of the nodes.
func (s *scaled) join(ctx context.Context) error {
	s.nodes = exec.CommandContext(ctx, binary, "hollow", "--nodes", strconv.Itoa(*scaleNodes), "--kubeconfig", s.dir+"/kubeconfig", "--profiles", profilesAt)
	s.nodes.Stderr, s.nodes.Env = os.Stderr, append(os.Environ(), nodesHeap, "TMPDIR="+s.dir)
	s.nodes.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return s.nodes.Start()
}

// end stops the nodes and removes the cluster.
func (s *scaled) end(ctx context.Context) error {
	if s.nodes != nil && s.nodes.Process != nil {
		_ = s.nodes.Process.Kill() // they have nothing to leave in order
		_ = s.nodes.Wait()
	}
	return s.down(ctx)
}

// followNodes counts the hollow nodes that are ready.
func (s *scaled) followNodes(ctx context.Context) {
	nodes := informer.New(s.cluster, client.Nodes, informer.Options{LabelSelector: hollowLabel})
	nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		was, is := e.Old != nil && nodeReady(e.Old), e.New != nil && nodeReady(e.New)
		switch {
		case is && !was:
			s.ready.Add(1)
		case was && !is:
			s.ready.Add(-1)
			s.lost.Add(1)
		}
		s.wake()
	})
	_ = nodes.Run(ctx) // ends with ctx alone
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// followDeployments counts the pods that are ready.
func (s *scaled) followDeployments(ctx context.Context) {
	made := informer.New(s.cluster, client.Deployments, informer.Options{Namespace: metav1.NamespaceDefault})
	made.Subscribe(func(e informer.Event[*appsv1.Deployment]) {
		if e.New == nil {
			return
		}
		now := int64(e.New.Status.ReadyReplicas)
		s.running.Add(now - s.readyOf[e.New.Name])
		s.readyOf[e.New.Name] = now
		s.wake()
	})
	_ = made.Run(ctx)
}

func (s *scaled) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// until waits for a condition, as long as ctx lasts.
func (s *scaled) until(ctx context.Context, reached func() bool) {
	for !reached() {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return
		}
	}
}

// fill makes deployments at the rate that was asked for, or at that which the cluster
// takes, until there are all the pods, or the time is over.
func (s *scaled) fill(ctx context.Context) string {
	begin, late := time.Now(), time.Duration(0)
	asked, most := 0, int64(0)
	for n := 0; asked < *scalePods && ctx.Err() == nil; n++ {
		if *scaleRate > 0 {
			_ = pause(ctx, time.Until(begin.Add(late+time.Duration(float64(asked) / *scaleRate * float64(time.Second)))))
		}
		waits := time.Now()
		s.until(ctx, func() bool { return int64(asked)-s.running.Load() < outstanding })
		late += time.Since(waits) // is not caught up with
		size := min(perDeployment, *scalePods-asked)
		if _, err := client.Deployments.Create(ctx, s.cluster, fleet(n, int32(size))); err != nil { //nolint:gosec // at most perDeployment
			return fmt.Sprintf("%d ready; the next deployment: %v", s.running.Load(), err)
		}
		asked += size
		most = max(most, int64(asked)-s.running.Load())
	}
	s.until(ctx, func() bool { return s.running.Load() >= int64(*scalePods) })
	return fmt.Sprintf("%d ready, %.0f a second, %d on their way at most, waited %.0f s for the cluster",
		s.running.Load(), float64(s.running.Load())/time.Since(begin).Seconds(), most, late.Seconds())
}

// fleet is the n-th deployment.
func fleet(n int, size int32) *appsv1.Deployment {
	labels := map[string]string{"fleet": strconv.Itoa(n)}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: fmt.Sprintf("fleet-%d", n)},
		Spec: appsv1.DeploymentSpec{
			Replicas: &size, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					NodeSelector: map[string]string{hollowLabel: "true"},
					Containers: []corev1.Container{{Name: "main", Image: podImage, Resources: corev1.ResourceRequirements{
						Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("10Mi")},
					}}},
				},
			},
		},
	}
}
