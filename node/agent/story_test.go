package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

var update = flag.Bool("update", false, "rewrite testdata")

// held keeps a pod in the test's API server while its agent stops it, as the
// real one does without a finalizer.
const held = "test/graceful"

// api is clienttest's server with graceful deletion of pods and tokens.
type api struct {
	*clienttest.Memory
	tokens int
	events atomic.Int64
	// down makes the server refuse everything.
	down atomic.Bool
}

var errDown = errors.New("connection refused")

func (a *api) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	if a.down.Load() {
		return nil, errDown
	}
	return a.Memory.List(ctx, t, opts)
}

func (a *api) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	if a.down.Load() {
		return nil, errDown
	}
	return a.Memory.Watch(ctx, t, opts)
}

func (a *api) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	if a.down.Load() && t.Resource == client.Events.GroupVersionResource {
		// An event that could not be told is told later, at a moment that is chance:
		// here it is refused for good.
		return nil, apierrors.NewForbidden(t.Resource.GroupResource(), "", errDown)
	}
	if a.down.Load() {
		return nil, errDown
	}
	if t.Resource == client.Events.GroupVersionResource {
		// Events are named by the time, and here much happens at one instant.
		e := obj.(*corev1.Event).DeepCopy()
		e.Name = fmt.Sprintf("%s-%d", e.Name, a.events.Add(1))
		obj = e
	}
	if t.Subresource != "token" {
		return a.Memory.Create(ctx, t, obj, opts)
	}
	a.tokens++
	request := obj.(*authenticationv1.TokenRequest).DeepCopy()
	request.Status.Token = fmt.Sprintf("token-%d", a.tokens)
	request.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*request.Spec.ExpirationSeconds) * time.Second))
	return request, nil
}

func (a *api) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	if t.Resource != client.Pods.GroupVersionResource {
		return a.Memory.Delete(ctx, t, opts)
	}
	if err := a.Memory.Delete(ctx, t, opts); err != nil {
		return err
	}
	// The agent may be quicker than what follows.
	pod, err := client.Pods.Get(ctx, a.Memory, t.Namespace, t.Name)
	if err != nil {
		return unlessGone(err)
	}
	pod = pod.DeepCopy()
	pod.ResourceVersion = "" // whatever the agent writes meanwhile
	if opts.GracePeriodSeconds != nil && *opts.GracePeriodSeconds == 0 {
		pod.Finalizers = nil
	} else if grace := opts.GracePeriodSeconds; grace != nil {
		pod.DeletionGracePeriodSeconds = grace
	} else {
		pod.DeletionGracePeriodSeconds = pod.Spec.TerminationGracePeriodSeconds
	}
	_, err = client.Pods.Update(ctx, a.Memory, pod)
	return unlessGone(err)
}

// unlessGone is nil for what is gone.
func unlessGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// story is one node's life in false time, written down as it happens.
type story struct {
	t      *testing.T
	api    *api
	engine *agenttest.Engine
	dir    string
	begin  time.Time
	ctx    context.Context
	stop   context.CancelFunc
	marks  *timeline.Recorder

	agent     *Agent
	stopAgent func()
	// kubelet is the configuration of the next agent.
	kubelet settings.Kubelet
	// observe is what the node has left, nil for enough of everything.
	observe func() pressure.Observations
	// ending is closed when the machine goes down.
	ending <-chan struct{}

	mu    sync.Mutex
	at    time.Duration
	seen  map[string]string
	shown map[string]string
	told  []string
	lines []string
}

// tell runs a story and compares what was written with testdata/<name>.txt.
func tell(t *testing.T, name string, fn func(s *story)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &story{t: t, api: &api{Memory: clienttest.NewMemory()}, engine: agenttest.New(), dir: dir, begin: time.Now(), marks: timeline.New(),
			seen: map[string]string{}, shown: map[string]string{}}
		s.ctx, s.stop = context.WithCancel(t.Context())
		s.api.Seed(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
		s.watch()
		s.startAgent()
		fn(s)
		s.stopAgent()
		s.stop()
		s.engine.Close()
		synctest.Wait()
		s.compare(name)
	})
}

func (s *story) compare(name string) {
	s.t.Helper()
	s.flush()
	if name == "" {
		return // what happens in it at one moment has no order that could be compared
	}
	got := strings.Join(s.lines, "\n") + "\n"
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != string(want) {
		s.t.Errorf("the story differs from %s (run with -update and read the diff)\n--- got\n%s--- want\n%s", path, got, want)
	}
}

func (s *story) startAgent() {
	a, err := New(Config{
		Kubelet: &s.kubelet, poll: true, Observe: s.observe, Ending: s.ending, Sys: filepath.Join(s.dir, "sys"),
		NodeName: "n1", NodeIPs: []string{"192.0.2.1"}, Transport: s.api, Engine: s.engine, Root: filepath.Join(s.dir, "pods"), CgroupMount: filepath.Join(s.dir, "cgroup"),
		LogMaxSize: -1, PodCIDR: "10.0.0.0/24", Timeline: s.marks, ClusterDNS: []string{"10.96.0.10"},
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			s.t.Errorf("agent ended: %v", err)
		}
	}()
	s.agent, s.stopAgent = a, func() { cancel(); <-done }
	synctest.Wait()
}

// say writes one line with the time since the story began.
func (s *story) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn()
	s.lines = append(s.lines, fmt.Sprintf("%-8s ", s.at)+fmt.Sprintf(format, args...))
}

// see notes a pod's picture. Of several at one instant, whose number depends on
// how goroutines take turns, the last counts.
func (s *story) see(name, picture string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn()
	s.seen[name] = picture
}

// turn begins a new instant when the time has moved: what was seen in the old
// one is written, pictures first.
func (s *story) turn() {
	now := time.Since(s.begin).Truncate(time.Millisecond)
	if now == s.at {
		return
	}
	s.flush()
	s.at = now
}

func (s *story) flush() {
	for _, name := range slices.Sorted(maps.Keys(s.seen)) {
		if s.shown[name] != s.seen[name] {
			s.lines = append(s.lines, fmt.Sprintf("%-8s %s", s.at, s.seen[name]))
		}
		s.shown[name] = s.seen[name]
	}
	slices.Sort(s.told)
	for _, e := range s.told {
		s.lines = append(s.lines, fmt.Sprintf("%-8s   event %s", s.at, e))
	}
	clear(s.seen)
	s.told = nil
}

// hear notes an event about a pod.
func (s *story) hear(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn()
	s.told = append(s.told, text)
}

// watch writes down every change of a pod's status and every event about one.
func (s *story) watch() {
	pods := informer.New(s.api, client.Pods, informer.Options{})
	pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New == nil {
			s.see(e.Old.Name, e.Old.Name+" gone")
			return
		}
		s.see(e.New.Name, picture(e.New))
	})
	events := informer.New(s.api, client.Events, informer.Options{})
	events.Subscribe(func(e informer.Event[*corev1.Event]) {
		if e.New == nil || e.New.InvolvedObject.Kind != "Pod" {
			return
		}
		repeat := ""
		if e.New.Count > 1 {
			repeat = fmt.Sprintf(" (x%d)", e.New.Count)
		}
		s.hear(fmt.Sprintf("%s %s %s: %s%s", e.New.InvolvedObject.Name, e.New.Type, e.New.Reason, e.New.Message, repeat))
	})
	go pods.Run(s.ctx)
	go events.Run(s.ctx)
	synctest.Wait()
}

// picture is a pod's status on one line.
func picture(p *corev1.Pod) string {
	var b strings.Builder
	phase := string(p.Status.Phase)
	if phase == "" {
		phase = "new"
	}
	fmt.Fprintf(&b, "%s %s", p.Name, phase)
	if p.DeletionTimestamp != nil {
		b.WriteString(" deleting")
	}
	if p.Status.Reason != "" {
		fmt.Fprintf(&b, " reason=%s", p.Status.Reason)
	}
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.PodScheduled {
			fmt.Fprintf(&b, " +%s", c.Type)
		}
	}
	lists := [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses}
	for _, list := range lists {
		for _, c := range list {
			fmt.Fprintf(&b, " | %s", containerPicture(c))
		}
	}
	return b.String()
}

func containerPicture(c corev1.ContainerStatus) string {
	text := c.Name + " " + statePicture(c.State)
	if c.Ready {
		text += " ready"
	}
	if c.RestartCount > 0 {
		text += fmt.Sprintf(" restarts=%d last=%s", c.RestartCount, statePicture(c.LastTerminationState))
	}
	return text
}

func statePicture(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Waiting != nil:
		return "waiting:" + s.Waiting.Reason
	case s.Terminated != nil:
		return fmt.Sprintf("ended:%s(%d)", s.Terminated.Reason, s.Terminated.ExitCode)
	}
	return "none"
}

// pod makes a pod bound to the node; change it before create.
func pod(name string, containers ...corev1.Container) *corev1.Pod {
	grace := int64(30)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Finalizers: []string{held}, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			NodeName: "n1", Containers: containers, RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			DNSPolicy: corev1.DNSClusterFirst,
		},
	}
}

func container(name, image string) corev1.Container {
	return corev1.Container{Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent}
}

func (s *story) create(p *corev1.Pod) {
	s.t.Helper()
	if _, err := client.Pods.Create(s.ctx, s.api, p); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func (s *story) get(name string) *corev1.Pod {
	s.t.Helper()
	p, err := client.Pods.Get(s.ctx, s.api, "default", name)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *story) delete(name string) {
	s.t.Helper()
	s.say("> delete %s", name)
	if err := client.Pods.Delete(s.ctx, s.api, "default", name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// pass lets time go by.
func (s *story) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *story) running() string {
	list := s.engine.Running()
	slices.Sort(list)
	return strings.Join(list, " ")
}

// clean insists that nothing of any pod is left on the node.
func (s *story) clean() {
	s.t.Helper()
	if !s.engine.Empty() {
		s.t.Error("the engine still holds something")
	}
	for _, dir := range []string{"pods", "logs/pods"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if err != nil || len(entries) > 0 {
			s.t.Errorf("%s holds %v (%v)", dir, entries, err)
		}
	}
}

func deleteNow() metav1.DeleteOptions {
	now := int64(0)
	return metav1.DeleteOptions{GracePeriodSeconds: &now}
}

func quantity(s string) resource.Quantity { return resource.MustParse(s) }
