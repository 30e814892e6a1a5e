// Package podresources tells other programs on the node, over a unix socket, which
// devices, CPUs, memory and claims the containers of pods have
// (k8s.io/kubelet/pkg/apis/podresources/v1): what monitoring of devices and
// topology-aware schedulers read. It only shows what the agent has given.
package podresources

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
	podresourcesv1alpha1 "k8s.io/kubelet/pkg/apis/podresources/v1alpha1"
	"k8s.io/utils/cpuset"

	"github.com/sampan-dev/sampan/node/agent/claim"
	"github.com/sampan-dev/sampan/node/agent/cpu"
	"github.com/sampan-dev/sampan/node/agent/device"
	"github.com/sampan-dev/sampan/node/agent/memory"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/socket"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Socket is where the service is found below a kubelet's directory.
const Socket = "pod-resources/kubelet.sock"

// Limits of the service: questions that are answered at the same time, and the
// size of one.
const (
	maxStreams = 32
	maxMessage = 64 << 10
)

// Config is what Run needs. CPUs and Memory are nil when their policy is none.
type Config struct {
	// Path is the socket's.
	Path string
	// Pods are those that have their place on the node and have not ended.
	Pods    func() []*corev1.Pod
	Devices *device.Devices
	CPUs    *cpu.CPUs
	Memory  *memory.Memory
	Claims  *claim.Claims
	// Counts may be nil.
	Counts *tally.Tally
}

// Run answers until ctx ends. It fails when it can't begin.
func Run(ctx context.Context, cfg Config) error {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ChainUnaryInterceptor(socket.Limit(), cfg.counting))
	own := &lister{cfg: cfg}
	podresourcesv1.RegisterPodResourcesListerServer(server, own)
	podresourcesv1alpha1.RegisterPodResourcesListerServer(server, alpha{lister: own})
	if err := socket.Serve(ctx, cfg.Path, server); err != nil {
		return fmt.Errorf("pod resources: %w", err)
	}
	return nil
}

// counted are the methods as the counts name them.
var counted = map[string]string{
	podresourcesv1.PodResourcesLister_List_FullMethodName:                    tally.ListResources,
	podresourcesv1.PodResourcesLister_Get_FullMethodName:                     tally.GetResources,
	podresourcesv1.PodResourcesLister_GetAllocatableResources_FullMethodName: tally.GetAllAllocable,
}

// counting counts the questions.
func (cfg Config) counting(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, req)
	if info.FullMethod == podresourcesv1alpha1.PodResourcesLister_List_FullMethodName {
		cfg.Counts.ResourcesAskedBefore()
	}
	if method, known := counted[info.FullMethod]; known {
		cfg.Counts.ResourcesAsked(method, err)
	}
	return answer, err
}

// lister implements podresourcesv1.PodResourcesListerServer.
type lister struct {
	podresourcesv1.UnimplementedPodResourcesListerServer

	cfg Config
}

// List tells of all pods.
func (l *lister) List(context.Context, *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	out := &podresourcesv1.ListPodResourcesResponse{}
	for _, p := range l.cfg.Pods() {
		out.PodResources = append(out.PodResources, l.pod(p))
	}
	return out, nil
}

// Get tells of one pod.
func (l *lister) Get(_ context.Context, r *podresourcesv1.GetPodResourcesRequest) (*podresourcesv1.GetPodResourcesResponse, error) {
	for _, p := range l.cfg.Pods() {
		if p.Namespace == r.GetPodNamespace() && p.Name == r.GetPodName() {
			return &podresourcesv1.GetPodResourcesResponse{PodResources: l.pod(p)}, nil
		}
	}
	// Upstream's code: its error is a plain one.
	return nil, status.Errorf(codes.Unknown, "pod %s in namespace %s not found", r.GetPodName(), r.GetPodNamespace())
}

// GetAllocatableResources tells what there is to give, taken or not.
func (l *lister) GetAllocatableResources(context.Context, *podresourcesv1.AllocatableResourcesRequest) (*podresourcesv1.AllocatableResourcesResponse, error) {
	out := &podresourcesv1.AllocatableResourcesResponse{}
	all := l.cfg.Devices.All()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		// Each by itself, since each has a place of its own.
		for _, id := range slices.Sorted(maps.Keys(all[name])) {
			out.Devices = append(out.Devices, &podresourcesv1.ContainerDevices{ResourceName: name, DeviceIds: []string{id}, Topology: topology(all[name][id])})
		}
	}
	if l.cfg.CPUs != nil {
		out.CpuIds = ids(l.cfg.CPUs.Allocatable())
	}
	if l.cfg.Memory != nil {
		out.Memory = blocks(l.cfg.Memory.Allocatable())
	}
	return out, nil
}

// pod tells of a pod's sidecars and containers; init containers that end have
// nothing that lasts.
func (l *lister) pod(p *corev1.Pod) *podresourcesv1.PodResources {
	out := &podresourcesv1.PodResources{Name: p.Name, Namespace: p.Namespace}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; spec.Sidecar(c) {
			out.Containers = append(out.Containers, l.container(p, c))
		}
	}
	for i := range p.Spec.Containers {
		out.Containers = append(out.Containers, l.container(p, &p.Spec.Containers[i]))
	}
	return out
}

func (l *lister) container(p *corev1.Pod, c *corev1.Container) *podresourcesv1.ContainerResources {
	uid := string(p.UID)
	out := &podresourcesv1.ContainerResources{Name: c.Name, Devices: l.devices(uid, c.Name), DynamicResources: l.claims(p, c)}
	if l.cfg.CPUs != nil {
		if own, ok := l.cfg.CPUs.Of(uid, c.Name); ok {
			out.CpuIds = ids(own)
		}
	}
	if l.cfg.Memory != nil {
		out.Memory = blocks(l.cfg.Memory.Blocks(uid, c.Name))
	}
	return out
}

// devices are a container's, those of one NUMA place together.
func (l *lister) devices(uid, container string) []*podresourcesv1.ContainerDevices {
	given, all := l.cfg.Devices.Given(uid, container), l.cfg.Devices.All()
	var out []*podresourcesv1.ContainerDevices
	for _, name := range slices.Sorted(maps.Keys(given)) {
		byPlace := map[string]*podresourcesv1.ContainerDevices{}
		for _, id := range slices.Sorted(slices.Values(given[name].IDs)) {
			nodes := all[name][id]
			place := fmt.Sprint(nodes)
			if byPlace[place] == nil {
				byPlace[place] = &podresourcesv1.ContainerDevices{ResourceName: name, Topology: topology(nodes)}
				out = append(out, byPlace[place])
			}
			byPlace[place].DeviceIds = append(byPlace[place].DeviceIds, id)
		}
	}
	return out
}

func (l *lister) claims(p *corev1.Pod, c *corev1.Container) []*podresourcesv1.DynamicResource {
	var out []*podresourcesv1.DynamicResource
	for _, g := range l.cfg.Claims.Given(p, c) {
		one := &podresourcesv1.DynamicResource{ClaimName: g.Claim, ClaimNamespace: p.Namespace}
		for _, d := range g.Devices {
			r := &podresourcesv1.ClaimResource{DriverName: d.Driver, PoolName: d.Pool, DeviceName: d.Name}
			if d.Share != "" {
				r.ShareId = &d.Share
			}
			for _, id := range d.CDI {
				r.CdiDevices = append(r.CdiDevices, &podresourcesv1.CDIDevice{Name: id})
			}
			one.ClaimResources = append(one.ClaimResources, r)
		}
		out = append(out, one)
	}
	return out
}

func blocks(list []memory.Block) []*podresourcesv1.ContainerMemory {
	var out []*podresourcesv1.ContainerMemory
	for _, b := range list {
		out = append(out, &podresourcesv1.ContainerMemory{MemoryType: string(b.Resource), Size: uint64(max(b.Size, 0)), Topology: topology(places(b.Nodes))}) //nolint:gosec // not negative
	}
	return out
}

func places(nodes numa.Nodes) []int64 {
	var list []int64
	for _, n := range nodes.List() {
		list = append(list, int64(n))
	}
	return list
}

func topology(nodes []int64) *podresourcesv1.TopologyInfo {
	if len(nodes) == 0 {
		return nil
	}
	out := &podresourcesv1.TopologyInfo{}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, &podresourcesv1.NUMANode{ID: n})
	}
	return out
}

func ids(s cpuset.CPUSet) []int64 {
	var list []int64
	for _, id := range s.List() {
		list = append(list, int64(id))
	}
	return list
}
