package hollow

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// RunsFor is the annotation of a pod whose containers end well after a time.
const RunsFor = "hollow.sampan.dev/runs-for"

const (
	codeTerm = 143
	running  = rt.ContainerState_CONTAINER_RUNNING
	exited   = rt.ContainerState_CONTAINER_EXITED
)

// engine remembers what it was asked to run. It has no goroutine of its own.
type engine struct {
	mu         sync.Mutex
	next       int
	node       int
	sandboxes  map[string]*sandbox
	containers map[string]*container
	subs       map[chan *rt.ContainerEventResponse]bool
}

// sandbox is what is asked about one later, and no more: there are very many.
type sandbox struct {
	id, ip              string
	meta                *rt.PodSandboxMetadata
	labels, annotations map[string]string
	namespaces          *rt.NamespaceOption
	created             time.Time
	ready               bool
}

// container is likewise.
type container struct {
	id, box                    string
	meta                       *rt.ContainerMetadata
	image                      *rt.ImageSpec
	labels, annotations        map[string]string
	state                      rt.ContainerState
	created, started, finished time.Time
	code                       int32
	end                        *time.Timer
}

// newEngine makes the engine of the node-th node.
func newEngine(node int) *engine {
	return &engine{node: node, sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, subs: map[chan *rt.ContainerEventResponse]bool{}}
}

// id gives the next name; the caller holds mu.
func (e *engine) id(prefix string) string {
	e.next++
	return prefix + strconv.Itoa(e.node) + "-" + strconv.Itoa(e.next)
}

// RunPodSandbox implements cri.Engine.
func (e *engine) RunPodSandbox(_ context.Context, r *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	cfg := r.GetConfig()
	b := &sandbox{id: e.id("box"), meta: cfg.GetMetadata(), labels: cfg.GetLabels(), annotations: cfg.GetAnnotations(),
		namespaces: cfg.GetLinux().GetSecurityContext().GetNamespaceOptions(), created: time.Now(), ready: true}
	if b.namespaces.GetNetwork() == rt.NamespaceMode_POD {
		b.ip = fmt.Sprintf("10.%d.%d.%d", 128+e.node/256%128, e.node%256, 1+e.next%254)
	}
	e.sandboxes[b.id] = b
	e.tell(b, b.id, rt.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &rt.RunPodSandboxResponse{PodSandboxId: b.id}, nil
}

// StopPodSandbox implements cri.Engine.
func (e *engine) StopPodSandbox(_ context.Context, r *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop(e.sandboxes[r.GetPodSandboxId()])
	return &rt.StopPodSandboxResponse{}, nil
}

// stop ends a sandbox, which may be nil; the caller holds mu.
func (e *engine) stop(b *sandbox) {
	if b == nil || !b.ready {
		return
	}
	for _, c := range e.containers {
		if c.box == b.id {
			e.finish(c, codeTerm)
		}
	}
	b.ready = false
	e.tell(b, b.id, rt.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// RemovePodSandbox implements cri.Engine.
func (e *engine) RemovePodSandbox(_ context.Context, r *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil {
		return &rt.RemovePodSandboxResponse{}, nil
	}
	e.stop(b)
	maps.DeleteFunc(e.containers, func(_ string, c *container) bool { return c.box == b.id })
	delete(e.sandboxes, b.id)
	return &rt.RemovePodSandboxResponse{}, nil
}

// UpdatePodSandboxResources implements cri.Engine.
func (*engine) UpdatePodSandboxResources(context.Context, *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error) {
	return &rt.UpdatePodSandboxResourcesResponse{}, nil
}

func (b *sandbox) state() rt.PodSandboxState {
	if b.ready {
		return rt.PodSandboxState_SANDBOX_READY
	}
	return rt.PodSandboxState_SANDBOX_NOTREADY
}

func (b *sandbox) status() *rt.PodSandboxStatus {
	return &rt.PodSandboxStatus{
		Id: b.id, Metadata: b.meta, State: b.state(), CreatedAt: b.created.UnixNano(),
		Network: &rt.PodSandboxNetworkStatus{Ip: b.ip}, Labels: b.labels, Annotations: b.annotations,
		Linux: &rt.LinuxPodSandboxStatus{Namespaces: &rt.Namespace{Options: b.namespaces}},
	}
}

// PodSandboxStatus implements cri.Engine.
func (e *engine) PodSandboxStatus(_ context.Context, r *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil {
		return nil, cri.NotFound("sandbox %q", r.GetPodSandboxId())
	}
	return &rt.PodSandboxStatusResponse{Status: b.status()}, nil
}

// ListPodSandbox implements cri.Engine.
func (e *engine) ListPodSandbox(_ context.Context, r *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListPodSandboxResponse{}
	for _, b := range e.sandboxes {
		if matches(b.labels, r.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &rt.PodSandbox{Id: b.id, Metadata: b.meta, State: b.state(),
				CreatedAt: b.created.UnixNano(), Labels: b.labels})
		}
	}
	return out, nil
}

// CreateContainer implements cri.Engine.
func (e *engine) CreateContainer(_ context.Context, r *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil || !b.ready {
		return nil, cri.NotFound("sandbox %q isn't ready", r.GetPodSandboxId())
	}
	cfg := r.GetConfig()
	c := &container{id: e.id("c"), box: b.id, meta: cfg.GetMetadata(), image: cfg.GetImage(), labels: cfg.GetLabels(),
		annotations: cfg.GetAnnotations(), created: time.Now()}
	e.containers[c.id] = c
	e.tell(b, c.id, rt.ContainerEventType_CONTAINER_CREATED_EVENT)
	return &rt.CreateContainerResponse{ContainerId: c.id}, nil
}

// StartContainer implements cri.Engine.
func (e *engine) StartContainer(_ context.Context, r *rt.StartContainerRequest) (*rt.StartContainerResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[r.GetContainerId()]
	if c == nil {
		return nil, cri.NotFound("container %q", r.GetContainerId())
	}
	b := e.sandboxes[c.box]
	c.state, c.started = running, time.Now()
	if d, err := time.ParseDuration(b.annotations[RunsFor]); err == nil {
		c.end = time.AfterFunc(d, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.finish(c, 0)
		})
	}
	e.tell(b, c.id, rt.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &rt.StartContainerResponse{}, nil
}

// finish notes a container's end, once; the caller holds mu.
func (e *engine) finish(c *container, code int32) {
	if c == nil || c.state != running {
		return
	}
	if c.end != nil {
		c.end.Stop()
	}
	c.state, c.code, c.finished = exited, code, time.Now()
	if b := e.sandboxes[c.box]; b != nil {
		e.tell(b, c.id, rt.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

// StopContainer implements cri.Engine: nothing is there that would take its time.
func (e *engine) StopContainer(_ context.Context, r *rt.StopContainerRequest) (*rt.StopContainerResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.finish(e.containers[r.GetContainerId()], codeTerm)
	return &rt.StopContainerResponse{}, nil
}

// RemoveContainer implements cri.Engine.
func (e *engine) RemoveContainer(_ context.Context, r *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.finish(e.containers[r.GetContainerId()], codeTerm)
	delete(e.containers, r.GetContainerId())
	return &rt.RemoveContainerResponse{}, nil
}

// ListContainers implements cri.Engine.
func (e *engine) ListContainers(_ context.Context, r *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListContainersResponse{}
	for _, c := range e.containers {
		if matches(c.labels, r.GetFilter().GetLabelSelector()) {
			out.Containers = append(out.Containers, &rt.Container{Id: c.id, PodSandboxId: c.box, Metadata: c.meta,
				State: c.state, CreatedAt: c.created.UnixNano(), Labels: c.labels, Annotations: c.annotations})
		}
	}
	return out, nil
}

// ContainerStatus implements cri.Engine.
func (e *engine) ContainerStatus(_ context.Context, r *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[r.GetContainerId()]
	if c == nil {
		return nil, cri.NotFound("container %q", r.GetContainerId())
	}
	s := &rt.ContainerStatus{Id: c.id, Metadata: c.meta, State: c.state, CreatedAt: c.created.UnixNano(), ExitCode: c.code,
		Image: c.image, ImageRef: c.image.GetImage(), Labels: c.labels, Annotations: c.annotations}
	if !c.started.IsZero() {
		s.StartedAt = c.started.UnixNano()
	}
	if !c.finished.IsZero() {
		s.FinishedAt = c.finished.UnixNano()
	}
	return &rt.ContainerStatusResponse{Status: s}, nil
}

func matches(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}
