package claim

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	healthapi "k8s.io/kubelet/pkg/apis/dra-health/v1"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/node/agent/plugin"
)

// fake is a real DRA driver: a gRPC server at a socket.
type fake struct {
	draapi.UnimplementedDRAPluginServer
	healthapi.UnimplementedDRAResourceHealthServer

	health chan *healthapi.NodeWatchResourcesResponse

	mu     sync.Mutex
	calls  []string
	refuse string
	// keep is why it unprepares nothing, "" when it does.
	keep string
}

func (f *fake) NodePrepareResources(_ context.Context, r *draapi.NodePrepareResourcesRequest) (*draapi.NodePrepareResourcesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &draapi.NodePrepareResourcesResponse{Claims: map[string]*draapi.NodePrepareResourceResponse{}}
	for _, c := range r.GetClaims() {
		f.calls = append(f.calls, "prepare "+c.GetName())
		out.Claims[c.GetUid()] = &draapi.NodePrepareResourceResponse{Error: f.refuse, Devices: []*draapi.Device{
			{RequestNames: []string{"big"}, PoolName: "pool", DeviceName: "gpu-0", CdiDeviceIds: []string{"example.com/gpu=0"}},
			{RequestNames: []string{"small"}, PoolName: "pool", DeviceName: "gpu-1", CdiDeviceIds: []string{"example.com/gpu=1"}},
		}}
	}
	return out, nil
}

func (f *fake) NodeUnprepareResources(_ context.Context, r *draapi.NodeUnprepareResourcesRequest) (*draapi.NodeUnprepareResourcesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &draapi.NodeUnprepareResourcesResponse{Claims: map[string]*draapi.NodeUnprepareResourceResponse{}}
	for _, c := range r.GetClaims() {
		f.calls = append(f.calls, "unprepare "+c.GetName())
		out.Claims[c.GetUid()] = &draapi.NodeUnprepareResourceResponse{Error: f.keep}
	}
	return out, nil
}

func (f *fake) NodeWatchResources(_ *healthapi.NodeWatchResourcesRequest, s grpc.ServerStreamingServer[healthapi.NodeWatchResourcesResponse]) error {
	for {
		select {
		case h, more := <-f.health:
			if !more {
				return nil
			}
			if err := s.Send(h); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (f *fake) heard() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}

// bench is the claims of one node, with a driver.
type bench struct {
	t       *testing.T
	server  *clienttest.Memory
	driver  *fake
	dir     string
	c       *Claims
	changed chan struct{}
	info    plugin.Info
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return benchOf(t, func(s *grpc.Server, f *fake, info *plugin.Info) {
		draapi.RegisterDRAPluginServer(s, f)
		healthapi.RegisterDRAResourceHealthServer(s, f)
		info.Versions = []string{draapi.DRAPluginService, healthapi.DRAResourceHealthService}
	})
}

// benchOf is a bench whose driver serves what serve makes it serve.
func benchOf(t *testing.T, serve func(*grpc.Server, *fake, *plugin.Info)) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "dra")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir, server: clienttest.NewMemory(), driver: &fake{health: make(chan *healthapi.NodeWatchResourcesResponse, 8)}}
	socket := filepath.Join(dir, "dra.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	b.info = plugin.Info{Type: "DRAPlugin", Name: "gpu.example.com", Endpoint: socket}
	serve(server, b.driver, &b.info)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); os.RemoveAll(dir) })
	b.restart()
	return b
}

// another is a second instance of the driver, at a socket of its own.
func (b *bench) another() (*fake, plugin.Info) {
	b.t.Helper()
	f, info := &fake{health: make(chan *healthapi.NodeWatchResourcesResponse)}, b.info
	info.Endpoint = filepath.Join(b.dir, "newer.sock")
	info.Versions = []string{draapi.DRAPluginService}
	l, err := (&net.ListenConfig{}).Listen(b.t.Context(), "unix", info.Endpoint)
	if err != nil {
		b.t.Fatal(err)
	}
	server := grpc.NewServer()
	draapi.RegisterDRAPluginServer(server, f)
	go func() { _ = server.Serve(l) }()
	b.t.Cleanup(server.Stop)
	return f, info
}

// restart is what happens to claims when the agent does.
func (b *bench) restart() {
	b.t.Helper()
	b.changed = make(chan struct{}, 8)
	b.c = New(Config{Transport: b.server, NodeName: "n1", Path: filepath.Join(b.dir, "state"), Changed: func() { b.changed <- struct{}{} }, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	if err := b.c.Handler(ctx).Register(ctx, b.info); err != nil {
		b.t.Fatal(err)
	}
}

// claim is an allocated claim reserved for pods.
func (b *bench) claim(name string, pods ...string) {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)}}
	c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Request: "big", Driver: "gpu.example.com", Pool: "pool", Device: "gpu-0"}, {Request: "small", Driver: "gpu.example.com", Pool: "pool", Device: "gpu-1"},
	}}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p, UID: types.UID(p)})
	}
	b.server.Seed(c)
}

func using(pod, claim string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: "default", UID: types.UID(pod)},
		Spec: corev1.PodSpec{
			ResourceClaims: []corev1.PodResourceClaim{{Name: "gpus", ResourceClaimName: &claim}},
			Containers: []corev1.Container{
				{Name: "all", Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpus"}}}},
				{Name: "one", Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpus", Request: "small"}}}},
				{Name: "none"},
			},
		},
	}
}

func devices(t *testing.T, c *Claims, pod *corev1.Pod, container int) string {
	t.Helper()
	cfg := &rt.ContainerConfig{}
	if err := c.Grant(pod, &pod.Spec.Containers[container], cfg); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range cfg.CDIDevices {
		names = append(names, d.GetName())
	}
	return strings.Join(names, " ")
}

// TestLife: two pods share a claim; it is prepared once, and unprepared when the
// second is down, whoever restarts meanwhile.
func TestLife(t *testing.T) {
	b := newBench(t)
	b.claim("shared", "one", "two")
	one, two := using("one", "shared"), using("two", "shared")
	for _, p := range []*corev1.Pod{one, two, one} {
		if err := b.c.Prepare(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"example.com/gpu=0 example.com/gpu=1", "example.com/gpu=1", ""} {
		if got := devices(t, b.c, one, i); got != want {
			t.Errorf("container %d got %q, want %q", i, got, want)
		}
	}
	if err := b.c.Release(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	b.restart()
	if got := b.driver.heard(); got != "prepare shared" {
		t.Errorf("the driver heard %q", got)
	}
	if got := devices(t, b.c, two, 1); got != "example.com/gpu=1" {
		t.Errorf("after a restart the container got %q", got)
	}
	if got := b.c.Strangers(map[string]bool{}); len(got) != 1 || got[0] != "two" {
		t.Errorf("strangers are %v", got)
	}
	if err := b.c.Release(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if got := b.driver.heard(); got != "prepare shared, unprepare shared" {
		t.Errorf("the driver heard %q", got)
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	b.claim("mine", "one")
	if err := b.c.Prepare(t.Context(), using("thief", "mine")); err == nil ||
		err.Error() != "prepare dynamic resources: pod thief (thief) is not allowed to use ResourceClaim mine (uid-mine)" {
		t.Errorf("a pod that isn't in reservedFor: %v", err)
	}
	b.driver.mu.Lock()
	b.driver.refuse = "no power"
	b.driver.mu.Unlock()
	if err := b.c.Prepare(t.Context(), using("one", "mine")); err == nil || !strings.Contains(err.Error(), "NodePrepareResources failed for ResourceClaim mine: no power") {
		t.Errorf("a driver that refuses: %v", err)
	}
	// What was asked for may have happened: it is undone.
	if err := b.c.Release(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := b.driver.heard(); got != "prepare mine, unprepare mine" {
		t.Errorf("the driver heard %q", got)
	}
	b.c.Handler(t.Context()).Deregister(b.info)
	if err := b.c.Prepare(t.Context(), using("one", "mine")); err == nil || !strings.Contains(err.Error(), "DRA driver gpu.example.com is not registered") {
		t.Errorf("without a driver: %v", err)
	}
	// Of a driver that may never have been here nothing is wanted when the pod goes.
	if _, all := b.c.InUse(); all != 0 || b.c.Release(t.Context(), "one") != nil {
		t.Errorf("%d claims are left of a pod that never had one: it can't go", all)
	}
	old := b.info
	old.Versions = []string{"v1alpha3"}
	if err := b.c.Handler(t.Context()).Register(t.Context(), old); err == nil {
		t.Error("a driver of an old version is taken")
	}
}

// TestRolledBack: in a rolling update the newest instance of a driver serves, and when it
// fails the one before it again, which was there all the time.
func TestRolledBack(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"first", "second", "third"} {
		b.claim(name, "one")
	}
	prepare := func(claim string) {
		t.Helper()
		if err := b.c.Prepare(t.Context(), using("one", claim)); err != nil {
			t.Fatal(err)
		}
	}
	h := b.c.Handler(t.Context())
	newer, info := b.another()
	if err := h.Register(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	prepare("first")
	h.Deregister(info)
	prepare("second")
	if err := h.Register(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	h.Deregister(b.info) // and this update succeeds
	prepare("third")
	if got, older := newer.heard(), b.driver.heard(); got != "prepare first, prepare third" || older != "prepare second" {
		t.Errorf("the newer one heard %q, the older one %q", got, older)
	}
	h.Deregister(info)
	if _, err := b.c.driver(b.info.Name); err == nil {
		t.Error("there is a driver when all have gone")
	}
}

// TestEnding: a claim that drivers have begun to unprepare is for nobody new until they
// are done, also under the next agent.
func TestEnding(t *testing.T) {
	b := newBench(t)
	b.claim("shared", "one", "two")
	if err := b.c.Prepare(t.Context(), using("one", "shared")); err != nil {
		t.Fatal(err)
	}
	b.driver.mu.Lock()
	b.driver.keep = "busy"
	b.driver.mu.Unlock()
	if err := b.c.Release(t.Context(), "one"); err == nil || !strings.Contains(err.Error(), "NodeUnprepareResources failed for ResourceClaim shared: busy") {
		t.Errorf("a driver that doesn't give up: %v", err)
	}
	for range 2 {
		if err := b.c.Prepare(t.Context(), using("two", "shared")); err == nil || !strings.Contains(err.Error(), "ResourceClaim shared is being unprepared") {
			t.Errorf("half unprepared, for another pod: %v", err)
		}
		b.restart()
	}
	b.driver.mu.Lock()
	b.driver.keep = ""
	b.driver.mu.Unlock()
	if err := b.c.Release(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Prepare(t.Context(), using("two", "shared")); err != nil {
		t.Fatal(err)
	}
	if got := b.driver.heard(); got != "prepare shared, unprepare shared, unprepare shared, prepare shared" {
		t.Errorf("the driver heard %q", got)
	}
}

func TestHealth(t *testing.T) { health(t, newBench(t)) }

func health(t *testing.T, b *bench) {
	t.Helper()
	b.claim("mine", "one")
	pod := using("one", "mine")
	if err := b.c.Prepare(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got := b.c.Health(pod, &pod.Spec.Containers[1]); len(got) != 1 || got[0].Name != "claim:gpus/small" || got[0].Resources[0].Health != corev1.ResourceHealthStatusUnknown {
		t.Errorf("before the driver has said anything: %+v", got)
	}
	b.driver.health <- &healthapi.NodeWatchResourcesResponse{Devices: []*healthapi.DeviceHealth{
		{Device: &healthapi.DeviceIdentifier{PoolName: "pool", DeviceName: "gpu-1"}, Health: healthapi.HealthStatus_UNHEALTHY, Message: "hot"},
	}}
	select {
	case <-b.changed:
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	got := b.c.Health(pod, &pod.Spec.Containers[1])
	if r := got[0].Resources[0]; r.Health != corev1.ResourceHealthStatusUnhealthy || r.Message == nil || *r.Message != "hot" || r.ResourceID != "example.com/gpu=1" {
		t.Errorf("the device's health is %+v", r)
	}
	close(b.driver.health) // and the driver's stream ends
	select {
	case <-b.changed:
	case <-time.After(time.Minute):
		t.Fatal("nobody was told that the driver is silent")
	}
	if got := b.c.Health(pod, &pod.Spec.Containers[1]); got[0].Resources[0].Health != corev1.ResourceHealthStatusUnknown {
		t.Errorf("of a silent driver: %+v", got)
	}
}
