package node_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
	podresourcesv1alpha1 "k8s.io/kubelet/pkg/apis/podresources/v1alpha1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// things is a device plugin with two devices.
type things struct {
	pluginapi.UnimplementedDevicePluginServer

	n      *node
	server *grpc.Server
}

func (*things) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (*things) ListAndWatch(_ *pluginapi.Empty, s grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	err := s.Send(&pluginapi.ListAndWatchResponse{Devices: []*pluginapi.Device{{ID: "one", Health: pluginapi.Healthy}, {ID: "two", Health: pluginapi.Healthy}}})
	if err == nil {
		<-s.Context().Done()
	}
	return err
}

func (*things) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	out := &pluginapi.AllocateResponse{}
	for _, c := range r.GetContainerRequests() {
		out.ContainerResponses = append(out.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Envs:    map[string]string{"THING": strings.Join(c.GetDevicesIds(), ",")},
			Devices: []*pluginapi.DeviceSpec{{ContainerPath: "/dev/thing", HostPath: "/dev/null", Permissions: "rw"}},
		})
	}
	return out, nil
}

// things starts the plugin and registers it.
func (n *node) things() *things {
	n.Helper()
	d := &things{n: n, server: grpc.NewServer()}
	dir := filepath.Join(n.dir, "k/device-plugins")
	until(n, "the agent takes plugins", func() bool { _, err := os.Stat(filepath.Join(dir, "kubelet.sock")); return err == nil })
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	n.must(err)
	defer conn.Close()
	pluginapi.RegisterDevicePluginServer(d.server, d)
	os.Remove(filepath.Join(dir, "things.sock"))
	l, err := (&net.ListenConfig{}).Listen(n.Context(), "unix", filepath.Join(dir, "things.sock"))
	n.must(err)
	go func() { _ = d.server.Serve(l) }()
	n.Cleanup(d.server.Stop)
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: "things.sock", ResourceName: thing}, grpc.WaitForReady(true))
	n.must(err)
	return d
}

const thing = "example.com/thing"

func (n *node) has(count int64) {
	n.Helper()
	until(n, "the node has its devices", func() bool {
		node, err := client.Nodes.Get(n.Context(), n.admin, "", n.name)
		if err != nil {
			return false
		}
		q := node.Status.Allocatable[thing]
		return q.Value() == count
	})
}

// podResources asks the agent over its socket.
func (n *node) podResources() podresourcesv1.PodResourcesListerClient {
	n.Helper()
	return podresourcesv1.NewPodResourcesListerClient(n.podResourcesConn())
}

func (n *node) podResourcesConn() *grpc.ClientConn {
	n.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.dir, "k/pod-resources/kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	n.must(err)
	n.Cleanup(func() { conn.Close() })
	return conn
}

// A pod keeps its device whoever is restarted: the plugin, the agent, both.
func TestDevicePlugin(t *testing.T) {
	n := newNode(t, nil)
	plugin := n.things()
	n.has(2)
	p := n.pod("has", "env", "THING", "then", "exists", "/dev/thing", "then", "wait")
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{thing: resource.MustParse("1")}
	n.create(p)
	before := statuses(n.ready("has"))["c"]
	until(t, "the container says what it has", func() bool { return strings.Contains(n.output(n.get("has"), "c"), "waiting") })
	given := strings.Fields(n.output(n.get("has"), "c"))[0]
	if given != "one" && given != "two" {
		t.Fatalf("the container was given %q", given)
	}
	same := func(after string) {
		t.Helper()
		now := statuses(n.ready("has"))["c"]
		if now.ContainerID != before.ContainerID || now.RestartCount != 0 {
			t.Errorf("after %s the container is another: %+v", after, now)
		}
		var got *podresourcesv1.GetPodResourcesResponse
		until(t, "the agent has heard of the pod", func() (ok bool) {
			var err error
			got, err = n.podResources().Get(t.Context(), &podresourcesv1.GetPodResourcesRequest{PodName: "has", PodNamespace: n.ns}, grpc.WaitForReady(true))
			return err == nil
		})
		d := got.GetPodResources().GetContainers()[0].GetDevices()
		if len(d) != 1 || d[0].GetResourceName() != thing || !slices.Equal(d[0].GetDeviceIds(), []string{given}) {
			t.Errorf("after %s the pod's devices are %v", after, d)
		}
		var first *podresourcesv1alpha1.ListPodResourcesResponse
		until(t, "the agent answers in the first version of the API", func() (ok bool) {
			var err error
			first, err = podresourcesv1alpha1.NewPodResourcesListerClient(n.podResourcesConn()).List(t.Context(), &podresourcesv1alpha1.ListPodResourcesRequest{}, grpc.WaitForReady(true))
			return err == nil
		})
		if list := first.GetPodResources(); len(list) != 1 || list[0].GetName() != "has" || !slices.Equal(list[0].GetContainers()[0].GetDevices()[0].GetDeviceIds(), []string{given}) {
			t.Errorf("after %s the pod's devices are, as the first version has them, %v", after, list)
		}
	}
	same("its start")
	plugin.server.Stop()
	n.has(0)
	same("the plugin's end")
	plugin = n.things()
	n.has(2)
	same("the plugin's return")
	plugin.server.Stop()
	n.close()
	n.open()
	n.start()
	n.has(0)
	same("the agent's restart without the plugin")
	n.things()
	n.has(2)
	same("the plugin's return after that")
	// One is left: of two more pods one gets it.
	var names []string
	for _, name := range []string{"more", "less"} {
		q := n.pod(name)
		q.Spec.Containers[0].Resources.Limits = corev1.ResourceList{thing: resource.MustParse("1")}
		n.create(q)
	}
	until(t, "one runs and one is refused", func() bool {
		names = nil
		for _, name := range []string{"more", "less"} {
			q := n.get(name)
			names = append(names, string(q.Status.Phase)+q.Status.Reason)
		}
		slices.Sort(names)
		return slices.Equal(names, []string{"FailedOutOf" + thing, "Running"}) || slices.Equal(names, []string{"FailedUnexpectedAdmissionError", "Running"})
	})
}

// Whole CPUs of one's own, and memory of one NUMA node: seen from inside, and told.
func TestStaticManagers(t *testing.T) {
	n := newNode(t, func(c *agent.Config) {
		c.Kubelet = &settings.Kubelet{
			CPUManagerPolicy: "static", ReservedSystemCPUs: "0", TopologyManagerPolicy: "single-numa-node", MemoryManagerPolicy: "Static",
			EvictionHard:   map[string]string{"memory.available": "100Mi"},
			ReservedMemory: []kubeletv1beta1.MemoryReservation{{NumaNode: 0, Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Mi")}}},
		}
	})
	shared := n.pod("shared", "wait")
	n.create(shared)
	n.ready("shared")
	all := n.exec("shared", "c", "/intruder", "status", "Cpus_allowed_list")
	if !strings.Contains(all, "-") && !strings.Contains(all, ",") {
		t.Skip("one CPU alone is nothing to share out")
	}
	own := n.pod("own", "wait")
	own.Spec.Containers[0].Resources = resources("1", "32Mi")
	n.create(own)
	before := statuses(n.ready("own"))["c"]
	look := func(after string) {
		t.Helper()
		mine := n.exec("own", "c", "/intruder", "status", "Cpus_allowed_list")
		if mine == "0" || strings.ContainsAny(mine, ",-") {
			t.Errorf("after %s the pod has CPUs %s", after, mine)
		}
		until(t, "the others have the rest", func() bool {
			rest := n.exec("shared", "c", "/intruder", "status", "Cpus_allowed_list")
			return !strings.Contains(","+rest+",", ","+mine+",") && rest != all
		})
		if nodes := n.exec("own", "c", "/intruder", "status", "Mems_allowed_list"); nodes != "0" {
			t.Errorf("after %s the pod has memory of %s", after, nodes)
		}
		var list *podresourcesv1.ListPodResourcesResponse
		until(t, "the agent has heard of both pods", func() bool {
			var err error
			list, err = n.podResources().List(t.Context(), &podresourcesv1.ListPodResourcesRequest{}, grpc.WaitForReady(true))
			return err == nil && len(list.GetPodResources()) == 2
		})
		for _, p := range list.GetPodResources() {
			c := p.GetContainers()[0]
			if p.GetName() == "own" && (len(c.GetCpuIds()) != 1 || len(c.GetMemory()) != 1 || c.GetMemory()[0].GetSize() != 32<<20) {
				t.Errorf("after %s the pod's resources are %v", after, c)
			}
			if p.GetName() == "shared" && len(c.GetCpuIds()) != 0 {
				t.Errorf("after %s the other's resources are %v", after, c)
			}
		}
	}
	look("its start")
	n.close()
	n.open()
	n.start()
	if now := statuses(n.ready("own"))["c"]; now.ContainerID != before.ContainerID {
		t.Errorf("the agent's restart touched the pod: %+v", now)
	}
	look("the agent's restart")
	got, err := n.podResources().GetAllocatableResources(t.Context(), &podresourcesv1.AllocatableResourcesRequest{}, grpc.WaitForReady(true))
	if err != nil || slices.Contains(got.GetCpuIds(), 0) || len(got.GetCpuIds()) == 0 || len(got.GetMemory()) == 0 {
		t.Errorf("allocatable: %v, %v", got, err)
	}
	n.delete("own")
	until(t, "the CPUs are everybody's again", func() bool {
		return n.gone("own") && n.exec("shared", "c", "/intruder", "status", "Cpus_allowed_list") == all
	})
}

// anyone lets everybody use the kubelet's API.
func anyone(c *agent.Config) {
	c.Authn = func(*http.Request) (identity.Identity, bool) { return identity.Identity{Name: "anyone"}, true }
	c.Authz = func(context.Context, identity.Identity, string, string) bool { return true }
}

// ask is an answer of the kubelet's API.
func (n *node) ask(path string) string {
	n.Helper()
	w := httptest.NewRecorder()
	n.agent.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	if w.Code != http.StatusOK {
		n.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// What monitoring reads is complete.
func TestSummary(t *testing.T) {
	n := newNode(t, anyone)
	p := n.pod("busy", "fill", "/tmp/x", "3", "then", "fill", "/v/y", "2", "then", "eat", "20")
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	n.create(p)
	n.ready("busy")
	until(t, "the pod has eaten", func() bool { return strings.Contains(n.output(n.get("busy"), "c"), "waiting") })
	get := n.ask
	var s stats.Summary
	until(t, "the agent has heard from itself that the container runs", func() bool {
		s = stats.Summary{}
		n.must(json.Unmarshal([]byte(get("/stats/summary")), &s))
		return len(s.Pods) == 1 && len(s.Pods[0].Containers) == 1 && !s.Pods[0].Containers[0].StartTime.IsZero()
	})
	node := s.Node
	if node.CPU == nil || node.Memory == nil || node.Memory.PageFaults == nil || node.Fs == nil || node.Runtime.ImageFs == nil || *node.Runtime.ImageFs.UsedBytes == 0 ||
		node.Rlimit == nil || *node.Rlimit.NumOfRunningProcesses == 0 || node.Swap == nil || node.Network == nil || len(node.SystemContainers) != 2 || node.StartTime.Time.After(time.Now().Add(-time.Minute)) {
		t.Errorf("node: %+v", node)
	}
	if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
		t.Fatalf("pods: %+v", s.Pods)
	}
	pod, c := s.Pods[0], s.Pods[0].Containers[0]
	if pod.Network == nil || pod.Network.Name != "eth0" || pod.ProcessStats == nil || *pod.ProcessStats.ProcessCount == 0 || pod.EphemeralStorage == nil || *pod.EphemeralStorage.UsedBytes < 5<<20 ||
		len(pod.VolumeStats) != 1 || *pod.VolumeStats[0].UsedBytes < 2<<20 || *pod.Memory.WorkingSetBytes < 20<<20 {
		t.Errorf("pod: %+v", pod)
	}
	if c.Rootfs == nil || *c.Rootfs.UsedBytes < 3<<20 || c.Rootfs.CapacityBytes == nil || c.Logs == nil || *c.Logs.UsedBytes == 0 || c.StartTime.IsZero() || *c.CPU.UsageCoreNanoSeconds == 0 {
		t.Errorf("container: %+v", c)
	}
	var few stats.Summary
	n.must(json.Unmarshal([]byte(get("/stats/summary?only_cpu_and_memory=true")), &few))
	if few.Pods[0].Network != nil || few.Node.Fs != nil || few.Pods[0].Containers[0].Rootfs != nil || few.Pods[0].CPU == nil {
		t.Errorf("CPU and memory only: %+v", few)
	}
	judgeMetrics(t, get)
}

// judgeMetrics: the names that dashboards ask for are there.
func judgeMetrics(t *testing.T, get func(string) string) {
	t.Helper()
	text := get("/metrics/resource")
	for _, name := range []string{
		"node_cpu_usage_seconds_total ", "node_memory_working_set_bytes ", "container_cpu_usage_seconds_total{", "container_memory_working_set_bytes{",
		"container_start_time_seconds{", "pod_cpu_usage_seconds_total{", "pod_memory_working_set_bytes{", "pod_swap_usage_bytes{", "resource_scrape_error 0",
	} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("/metrics/resource has no %s:\n%s", name, text)
		}
	}
	text = get("/metrics/cadvisor")
	for _, name := range []string{
		"container_cpu_usage_seconds_total{", "container_memory_working_set_bytes{", "container_memory_rss{", "container_memory_usage_bytes{", "container_network_receive_bytes_total{",
		"container_network_transmit_bytes_total{", "container_fs_usage_bytes{", "container_start_time_seconds{", "container_spec_memory_limit_bytes{", "container_spec_cpu_shares{",
		"machine_cpu_cores{", "machine_memory_bytes{", "container_last_seen{", "container_processes{", "container_oom_events_total{", "container_file_descriptors{",
	} {
		if !strings.Contains("\n"+text, "\n"+name) {
			t.Errorf("/metrics/cadvisor has no %s:\n%s", name, text)
		}
	}
}
