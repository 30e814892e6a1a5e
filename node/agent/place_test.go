package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// toaster is a real device plugin with two devices.
type toaster struct {
	pluginapi.UnimplementedDevicePluginServer
}

func (toaster) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (toaster) ListAndWatch(_ *pluginapi.Empty, s grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	if err := s.Send(&pluginapi.ListAndWatchResponse{Devices: []*pluginapi.Device{{ID: "left", Health: pluginapi.Healthy}, {ID: "right", Health: pluginapi.Healthy}}}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (toaster) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{{Envs: map[string]string{"SLOT": r.GetContainerRequests()[0].GetDevicesIds()[0]}}}}, nil
}

// plugIn serves the toaster and registers it with the agent.
func plugIn(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// The first registration is to see that somebody answers: until then sockets
	// in the directory are swept.
	request := &pluginapi.RegisterRequest{Version: "none", Endpoint: "toaster.sock", ResourceName: "example.com/toaster"}
	_, _ = pluginapi.NewRegistrationClient(conn).Register(ctx, request, grpc.WaitForReady(true))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "toaster.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, toaster{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	request.Version, request.Options = pluginapi.Version, &pluginapi.DevicePluginOptions{}
	if _, err := pluginapi.NewRegistrationClient(conn).Register(ctx, request); err != nil {
		t.Fatal(err)
	}
}

// eventually waits, in real time, for what the API says to be so.
func eventually[T client.Object](t *testing.T, server client.Transport, kind client.Resource[T], namespace, name string, so func(T) bool) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	initial := true
	w, err := kind.Watch(ctx, server, namespace, metav1.ListOptions{FieldSelector: "metadata.name=" + name, SendInitialEvents: &initial,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var found T
	came := false
	for e := range w.ResultChan() {
		obj, is := e.Object.(T)
		if came = is && obj.GetName() == name && so(obj); came {
			found = obj
			break
		}
	}
	if !came {
		t.Fatalf("%s %q never came to what was waited for", kind.Resource, name)
	}
	return found
}

// TestDevices: a plugin's devices are the node's, a pod gets one, its status shows
// its health, and one pod too many is refused. It runs in real time: plugins
// speak through real sockets.
func TestDevices(t *testing.T) {
	dir, err := os.MkdirTemp("", "ag")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	server, engine := &api{Memory: clienttest.NewMemory()}, agenttest.New()
	server.Seed(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	a, err := New(Config{
		NodeName: "n1", NodeIPs: []string{"192.0.2.1"}, Transport: server, Engine: engine, Root: filepath.Join(dir, "pods"),
		CgroupMount: filepath.Join(dir, "cgroup"), LogMaxSize: -1, plugins: true,
		Capacity: corev1.ResourceList{corev1.ResourceCPU: quantity("2"), corev1.ResourceMemory: quantity("1Gi")},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		engine.Close()
	}()
	plugIn(t, filepath.Join(dir, "kubelet", "device-plugins"))
	const name = "example.com/toaster"
	eventually(t, server, client.Nodes, "", "n1", func(n *corev1.Node) bool {
		have, usable := n.Status.Capacity[name], n.Status.Allocatable[name]
		return have.Value() == 2 && usable.Value() == 2
	})
	ask := func(pod *corev1.Pod, n int64) *corev1.Pod {
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{name: *resource.NewQuantity(n, resource.DecimalSI)}
		if _, err := client.Pods.Create(ctx, server, pod); err != nil {
			t.Fatal(err)
		}
		return pod
	}
	ask(pod("toast", container("app", "app")), 1)
	p := eventually(t, server, client.Pods, "default", "toast", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	if s := p.Status.ContainerStatuses[0].AllocatedResourcesStatus; len(s) != 1 || s[0].Name != name || len(s[0].Resources) != 1 ||
		s[0].Resources[0].Health != corev1.ResourceHealthStatusHealthy {
		t.Errorf("its status says it has %+v", s)
	}
	ask(pod("late", container("app", "app")), 2)
	p = eventually(t, server, client.Pods, "default", "late", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if want := "Pod was rejected: Allocate failed due to requested number of devices unavailable for example.com/toaster. Requested: 2, Available: 1, which is unexpected"; p.Status.Reason != "UnexpectedAdmissionError" || p.Status.Message != want {
		t.Errorf("the pod that is one too many: %s, %s", p.Status.Reason, p.Status.Message)
	}
}
