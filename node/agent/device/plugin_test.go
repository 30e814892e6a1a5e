package device

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/numa"
)

// gpu is a real device plugin: a gRPC server at a socket.
type gpu struct {
	pluginapi.UnimplementedDevicePluginServer

	server  *grpc.Server
	lists   chan []*pluginapi.Device
	options *pluginapi.DevicePluginOptions

	mu      sync.Mutex
	prefer  []string
	refuse  error
	started [][]string
	asked   int
}

func (g *gpu) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return g.options, nil
}

func (g *gpu) ListAndWatch(_ *pluginapi.Empty, s grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		select {
		case l := <-g.lists:
			if err := s.Send(&pluginapi.ListAndWatchResponse{Devices: l}); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (g *gpu) GetPreferredAllocation(_ context.Context, r *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := &pluginapi.PreferredAllocationResponse{}
	for _, c := range r.GetContainerRequests() {
		ids := append(slices.Clone(c.GetMustIncludeDeviceIDs()), g.prefer...)
		out.ContainerResponses = append(out.ContainerResponses, &pluginapi.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return out, nil
}

func (g *gpu) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.refuse != nil {
		return nil, g.refuse
	}
	out := &pluginapi.AllocateResponse{}
	for _, c := range r.GetContainerRequests() {
		ids := strings.Join(c.GetDevicesIds(), ",")
		out.ContainerResponses = append(out.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Envs: map[string]string{"GPUS": ids}, Mounts: []*pluginapi.Mount{{ContainerPath: "/lib/gpu", HostPath: "/usr/lib/gpu", ReadOnly: true}},
			Devices:     []*pluginapi.DeviceSpec{{ContainerPath: "/dev/gpu", HostPath: "/dev/null", Permissions: "rw"}},
			Annotations: map[string]string{"gpu": ids}, CdiDevices: []*pluginapi.CDIDevice{{Name: "example.com/gpu=" + ids}},
		})
	}
	return out, nil
}

func (g *gpu) PreStartContainer(_ context.Context, r *pluginapi.PreStartContainerRequest) (*pluginapi.PreStartContainerResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started = append(g.started, r.GetDevicesIds())
	return &pluginapi.PreStartContainerResponse{}, nil
}

// bench is one Devices that runs.
type bench struct {
	t       *testing.T
	dir     string
	d       *Devices
	changed chan struct{}
	stop    func()
}

// serve starts the plugin at a socket of that name and registers it.
func (b *bench) serve(name string, version string) (*gpu, error) {
	b.t.Helper()
	g := &gpu{
		server: grpc.NewServer(), lists: make(chan []*pluginapi.Device, 8),
		options: &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true},
	}
	pluginapi.RegisterDevicePluginServer(g.server, g)
	conn, err := grpc.NewClient("unix://"+filepath.Join(b.dir, Socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	client := pluginapi.NewRegistrationClient(conn)
	// Until somebody answers, sockets in the directory are swept.
	_, _ = client.Register(ctx, &pluginapi.RegisterRequest{Version: "none", Endpoint: name}, grpc.WaitForReady(true))
	l, err := (&net.ListenConfig{}).Listen(b.t.Context(), "unix", filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	go func() { _ = g.server.Serve(l) }()
	b.t.Cleanup(g.server.Stop)
	_, err = client.Register(ctx, &pluginapi.RegisterRequest{Version: version, Endpoint: name, ResourceName: "example.com/gpu", Options: g.options})
	return g, err
}

func newBench(t *testing.T) *bench {
	dir, err := os.MkdirTemp("", "dev") // short: sockets' paths have a limit
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) start() {
	b.t.Helper()
	b.changed = make(chan struct{}, 64)
	d, err := New(Config{Dir: b.dir, Changed: func() { b.changed <- struct{}{} }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	b.d = d
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

// await waits until the node has as many devices and as many healthy ones.
func (b *bench) await(capacity, allocatable int64) {
	b.t.Helper()
	limit := time.After(time.Minute)
	for {
		c, a := b.d.Capacity()
		have, usable := c["example.com/gpu"], a["example.com/gpu"]
		if have.Value() == capacity && usable.Value() == allocatable {
			return
		}
		select {
		case <-b.changed:
		case <-limit:
			b.t.Fatalf("there are %v devices, %v healthy; want %d, %d", have.Value(), usable.Value(), capacity, allocatable)
		}
	}
}

func list(health ...string) []*pluginapi.Device {
	var out []*pluginapi.Device
	for i, h := range health {
		out = append(out, &pluginapi.Device{
			ID: string(rune('a' + i)), Health: h, Topology: &pluginapi.TopologyInfo{Nodes: []*pluginapi.NUMANode{{ID: int64(i % 2)}}},
		})
	}
	return out
}

func asking(name string, counts ...int64) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	for i, n := range counts {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: string(rune('c' + i)), Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{"example.com/gpu": *resource.NewQuantity(n, resource.DecimalSI)},
		}})
	}
	return p
}

func (b *bench) place(p *corev1.Pod) error {
	return numa.Placer{Policy: numa.Policy{Name: numa.None}, Providers: []numa.Provider{b.d}}.Place(b.t.Context(), p)
}

const ok, bad = pluginapi.Healthy, pluginapi.Unhealthy

// TestPluginThatTellsNothing: one that doesn't say what its options are can't register.
func TestPluginThatTellsNothing(t *testing.T) {
	b := newBench(t)
	if _, err := b.serve("old.sock", "v1alpha1"); err == nil { // now the directory has been swept
		t.Fatal("an old version was taken")
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, pluginapi.UnimplementedDevicePluginServer{})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(b.dir, "dumb.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+filepath.Join(b.dir, Socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = pluginapi.NewRegistrationClient(conn).Register(t.Context(), &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: "dumb.sock", ResourceName: "example.com/dumb"})
	if err == nil || !strings.Contains(err.Error(), "failed to get device plugin options") {
		t.Errorf("%v", err)
	}
	if all := b.d.All(); all["example.com/dumb"] != nil {
		t.Errorf("it is used all the same: %v", all)
	}
}

func TestDevices(t *testing.T) {
	b := newBench(t)
	if _, err := b.serve("old.sock", "v1alpha1"); err == nil || !strings.Contains(err.Error(), `"v1alpha1" is not supported`) {
		t.Errorf("an old version: %v", err)
	}
	g, err := b.serve("gpu.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	g.lists <- list(ok, ok, ok, bad)
	b.await(4, 3)
	g.mu.Lock()
	g.prefer = []string{"b"}
	g.mu.Unlock()
	if err := b.place(asking("one", 1)); err != nil {
		t.Fatal(err)
	}
	if ids := b.d.Given("one", "c")["example.com/gpu"].IDs; !slices.Equal(ids, []string{"b"}) {
		t.Errorf("it was given %v, and the plugin prefers b", ids)
	}
	var refused *numa.Refused
	err = b.place(asking("greedy", 1, 2))
	if !errors.As(err, &refused) || refused.Reason != "UnexpectedAdmissionError" || refused.Message !=
		"Allocate failed due to requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1, which is unexpected" {
		t.Errorf("more than there are: %v", err)
	}
	if len(b.d.Given("greedy", "c")) != 0 {
		t.Error("a refused pod has kept a device")
	}
	g.mu.Lock()
	g.refuse = errors.New("burnt")
	g.mu.Unlock()
	if err := b.place(asking("unlucky", 1)); err == nil || !strings.Contains(err.Error(), "burnt") {
		t.Errorf("a plugin that refuses: %v", err)
	}
	cfg := &rt.ContainerConfig{Envs: []*rt.KeyValue{{Key: "HOME", Value: []byte("/")}}}
	if err := b.d.Grant(t.Context(), "one", "c", cfg); err != nil {
		t.Fatal(err)
	}
	if len(cfg.Envs) != 2 || string(cfg.Envs[1].Value) != "b" || cfg.Devices[0].ContainerPath != "/dev/gpu" || !cfg.Mounts[0].Readonly ||
		cfg.Annotations["gpu"] != "b" || cfg.CDIDevices[0].Name != "example.com/gpu=b" || len(g.started) != 1 {
		t.Errorf("the container got %v, and the plugin heard of %v", cfg, g.started)
	}
	g.lists <- list(ok, bad, ok, bad)
	b.await(4, 2)
	if h := b.d.Health("one", "c")["example.com/gpu"]["b"]; h != corev1.ResourceHealthStatusUnhealthy {
		t.Errorf("the health of b is %s", h)
	}
	g.server.Stop()
	b.await(4, 0)
	if h := b.d.Health("one", "c")["example.com/gpu"]["b"]; h != corev1.ResourceHealthStatusUnknown {
		t.Errorf("without a plugin the health of b is %s", h)
	}
}

// TestRestarts: neither a restart of the agent nor one of the plugin loses who
// has what; after one of the machine plugins are asked again.
func TestRestarts(t *testing.T) {
	b := newBench(t)
	g, err := b.serve("gpu.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	g.lists <- list(ok, ok)
	b.await(2, 2)
	if err := b.place(asking("one", 1)); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.start()
	b.await(0, 0)
	if err := b.d.Grant(t.Context(), "one", "c", &rt.ContainerConfig{}); err != nil {
		t.Errorf("the container can't be started again before the plugin is back: %v", err)
	}
	again, err := b.serve("gpu2.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	again.lists <- list(ok, ok)
	b.await(2, 2)
	if err := b.place(asking("two", 2)); err == nil {
		t.Error("a device was given twice")
	}
	b.d.Doubt("one")
	if err := b.d.Missing("one"); err != nil {
		t.Errorf("in doubt, with the plugin: %v", err)
	}
	if err := b.d.Grant(t.Context(), "one", "c", &rt.ContainerConfig{}); err != nil || again.asked != 1 {
		t.Errorf("after a reboot the plugin was asked %d times: %v", again.asked, err)
	}
	again.server.Stop()
	b.await(2, 0)
	if err := b.d.Grant(t.Context(), "one", "c", &rt.ContainerConfig{}); err == nil || !strings.Contains(err.Error(), "is not back yet") {
		t.Errorf("after a reboot, without the plugin: %v", err)
	}
	if err := b.d.Missing("one"); err == nil || err.Error() != "no healthy devices present; cannot allocate unhealthy devices example.com/gpu" {
		t.Errorf("in doubt, without the plugin: %v", err)
	}
	b.d.mu.Lock()
	delete(b.d.resources, "example.com/gpu")
	b.d.mu.Unlock()
	if err := b.d.Missing("one"); err == nil || err.Error() != "cannot allocate unregistered device example.com/gpu" {
		t.Errorf("in doubt, of a resource that is not known any more: %v", err)
	}
	if err := b.d.Missing("two"); err != nil {
		t.Errorf("a pod that nobody doubts: %v", err)
	}
	b.d.Keep(map[string]bool{})
	if len(b.d.Given("one", "c")) != 0 {
		t.Error("a forgotten pod has kept its device")
	}
}

// TestMissing: what a pod in doubt has must be there, and be well.
func TestMissing(t *testing.T) {
	b := newBench(t)
	g, err := b.serve("gpu.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	g.lists <- list(ok, ok)
	b.await(2, 2)
	if err := b.place(asking("one", 1)); err != nil {
		t.Fatal(err)
	}
	b.d.Doubt("one")
	health := []string{ok, ok}
	health[b.d.Given("one", "c")["example.com/gpu"].IDs[0][0]-'a'] = pluginapi.Unhealthy
	g.lists <- list(health...)
	b.await(2, 1)
	if err := b.d.Missing("one"); err == nil || !strings.HasPrefix(err.Error(), "previously allocated devices are no longer healthy") {
		t.Errorf("its device is ill: %v", err)
	}
	g.lists <- list(pluginapi.Unhealthy, pluginapi.Unhealthy)
	b.await(2, 0)
	if err := b.d.Missing("one"); err == nil || !strings.HasPrefix(err.Error(), "no healthy devices present") {
		t.Errorf("all are ill: %v", err)
	}
	// What a driver has for a container is no business of plugins.
	p := asking("two", 1)
	p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{
		RequestMappings: []corev1.ContainerExtendedResourceRequest{{ContainerName: "c", ResourceName: "example.com/gpu"}}}
	if err := b.place(p); err != nil || len(b.d.Given("two", "c")) != 0 {
		t.Errorf("a claimed device: %v, %v", err, b.d.Given("two", "c"))
	}
}

// TestHints: which nodes have enough devices.
func TestHints(t *testing.T) {
	b := newBench(t)
	g, err := b.serve("gpu.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	g.lists <- list(ok, ok, ok, ok) // a and c on node 0, b and d on node 1
	b.await(4, 4)
	p := asking("p", 2)
	hints := b.d.Hints(p, &p.Spec.Containers[0])["example.com/gpu"]
	want := []numa.Hint{{Nodes: numa.Of(0, 1)}, {Nodes: numa.Of(1), Preferred: true}, {Nodes: numa.Of(0), Preferred: true}}
	if !slices.Equal(hints, want) {
		t.Errorf("hints %+v, want %+v", hints, want)
	}
	if err := b.d.Allocate(t.Context(), p, &p.Spec.Containers[0], numa.Hint{Nodes: numa.Of(1)}); err != nil {
		t.Fatal(err)
	}
	if ids := b.d.Given("p", "c")["example.com/gpu"].IDs; !slices.Equal(ids, []string{"b", "d"}) {
		t.Errorf("it was given %v, and b and d are on node 1", ids)
	}
}

// TestRolledBack: of two plugins for one resource the newer one serves, and when it goes,
// the other one again: no device is missing for a moment.
func TestRolledBack(t *testing.T) {
	b := newBench(t)
	first, err := b.serve("first.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	first.lists <- list(ok, ok)
	b.await(2, 2)
	second, err := b.serve("second.sock", pluginapi.Version)
	if err != nil {
		t.Fatal(err)
	}
	second.lists <- list(ok, ok, ok)
	b.await(3, 3)
	if err := b.place(asking("new", 1)); err != nil {
		t.Fatal(err)
	}
	second.server.Stop()
	b.await(2, 2)
	if err := b.place(asking("back", 1)); err != nil {
		t.Fatal(err)
	}
	if first.asked != 1 || second.asked != 1 {
		t.Errorf("the plugins were asked %d and %d times, want once each", first.asked, second.asked)
	}
	first.lists <- list(ok, ok, ok, bad)
	b.await(4, 3)
	first.server.Stop()
	b.await(4, 0)
}
