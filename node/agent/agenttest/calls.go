package agenttest

import (
	"context"
	"fmt"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// How long the calls that make something take: so that what is visible between
// them has its own moment in a story.
const (
	sandboxTime = 4 * time.Millisecond
	createTime  = 2 * time.Millisecond
	startTime   = time.Millisecond
)

// RunPodSandbox implements cri.Engine.
func (e *Engine) RunPodSandbox(_ context.Context, r *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error) {
	time.Sleep(sandboxTime)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.FailSandbox != nil {
		return nil, e.FailSandbox
	}
	for _, b := range e.sandboxes {
		if b.config.GetMetadata().GetUid() == r.GetConfig().GetMetadata().GetUid() && b.ready {
			return nil, fmt.Errorf("pod %q has a sandbox", r.GetConfig().GetMetadata().GetName())
		}
	}
	b := &sandbox{id: e.id("box"), config: r.GetConfig(), created: time.Now(), ready: true}
	if r.GetConfig().GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == rt.NamespaceMode_POD {
		b.ip = fmt.Sprintf("10.0.0.%d", e.next)
	}
	e.sandboxes[b.id] = b
	e.tell(b, b.id, rt.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &rt.RunPodSandboxResponse{PodSandboxId: b.id}, nil
}

func (e *Engine) stopSandbox(b *sandbox) {
	for _, c := range e.containers {
		if c.box == b.id && c.state == running {
			e.finish(c, codeKill)
			closeOnce(c.kill)
		}
	}
	b.ready = false
	e.tell(b, b.id, rt.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// StopPodSandbox implements cri.Engine.
func (e *Engine) StopPodSandbox(_ context.Context, r *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.sandboxes[r.GetPodSandboxId()]; b != nil && b.ready {
		e.stopSandbox(b)
	}
	return &rt.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox implements cri.Engine.
func (e *Engine) RemovePodSandbox(_ context.Context, r *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.sandboxes[r.GetPodSandboxId()]; b != nil {
		e.stopSandbox(b)
		for id, c := range e.containers {
			if c.box == b.id {
				delete(e.containers, id)
			}
		}
		delete(e.sandboxes, b.id)
	}
	return &rt.RemovePodSandboxResponse{}, nil
}

// UpdatePodSandboxResources implements cri.Engine.
func (e *Engine) UpdatePodSandboxResources(_ context.Context, r *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil {
		return nil, fmt.Errorf("sandbox %q is not there", r.GetPodSandboxId())
	}
	if b.config.Linux != nil {
		b.config.Linux.Resources = r.GetResources()
	}
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
		Id: b.id, Metadata: b.config.GetMetadata(), State: b.state(), CreatedAt: b.created.UnixNano(),
		Network: &rt.PodSandboxNetworkStatus{Ip: b.ip}, Labels: clone(b.config.GetLabels()), Annotations: clone(b.config.GetAnnotations()),
		Linux: &rt.LinuxPodSandboxStatus{Namespaces: &rt.Namespace{Options: b.config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}
}

// PodSandboxStatus implements cri.Engine.
func (e *Engine) PodSandboxStatus(_ context.Context, r *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil {
		return nil, cri.NotFound("sandbox %q", r.GetPodSandboxId())
	}
	return &rt.PodSandboxStatusResponse{Status: b.status()}, nil
}

// ListPodSandbox implements cri.Engine.
func (e *Engine) ListPodSandbox(_ context.Context, r *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListPodSandboxResponse{}
	for _, b := range e.sandboxes {
		if matches(b.config.GetLabels(), r.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &rt.PodSandbox{
				Id: b.id, Metadata: b.config.GetMetadata(), State: b.state(), CreatedAt: b.created.UnixNano(), Labels: clone(b.config.GetLabels()),
			})
		}
	}
	return out, nil
}

// CreateContainer implements cri.Engine.
func (e *Engine) CreateContainer(ctx context.Context, r *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error) {
	time.Sleep(createTime)
	below := ""
	if e.Do(func() { below = e.Below[r.GetConfig().GetImage().GetImage()] }); below != "" {
		leave := cri.LeaveOf(ctx)
		if leave == nil {
			return nil, cri.NotFound("image %q: nobody to ask", below)
		}
		if err := leave(ctx, []string{below}, below); err != nil {
			return nil, cri.NotFound("image %q: %v", below, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil || !b.ready {
		return nil, cri.NotFound("sandbox %q isn't ready", r.GetPodSandboxId())
	}
	if e.Images[r.GetConfig().GetImage().GetImage()] == nil {
		return nil, cri.NotFound("image %q", r.GetConfig().GetImage().GetImage())
	}
	for _, c := range e.containers {
		m, want := c.config.GetMetadata(), r.GetConfig().GetMetadata()
		if c.box == b.id && m.GetName() == want.GetName() && m.GetAttempt() == want.GetAttempt() {
			return nil, fmt.Errorf("container %s#%d exists", m.GetName(), m.GetAttempt())
		}
	}
	c := &container{
		id: e.id("c"), box: b.id, config: r.GetConfig(), created: time.Now(),
		term: make(chan struct{}), kill: make(chan struct{}), done: make(chan struct{}),
	}
	e.containers[c.id] = c
	e.tell(b, c.id, rt.ContainerEventType_CONTAINER_CREATED_EVENT)
	return &rt.CreateContainerResponse{ContainerId: c.id}, nil
}

// StartContainer implements cri.Engine.
func (e *Engine) StartContainer(_ context.Context, r *rt.StartContainerRequest) (*rt.StartContainerResponse, error) {
	time.Sleep(startTime)
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[r.GetContainerId()]
	if c == nil {
		return nil, cri.NotFound("container %q", r.GetContainerId())
	}
	if c.state != created {
		return nil, fmt.Errorf("container %q is %v", c.id, c.state)
	}
	c.state, c.started = running, time.Now()
	program := e.Images[c.config.GetImage().GetImage()]
	e.tell(e.sandboxes[c.box], c.id, rt.ContainerEventType_CONTAINER_STARTED_EVENT)
	e.wg.Go(func() {
		code := program(&Process{Config: c.config, Attempt: c.config.GetMetadata().GetAttempt(), Term: c.term, Kill: c.kill})
		e.mu.Lock()
		defer e.mu.Unlock()
		e.finish(c, code)
	})
	return &rt.StartContainerResponse{}, nil
}

// finish notes a container's end, once. The caller holds the lock.
func (e *Engine) finish(c *container, code int32) {
	if c.state != running {
		return
	}
	c.state, c.code, c.finished = exited, code, time.Now()
	close(c.done)
	if b := e.sandboxes[c.box]; b != nil {
		e.tell(b, c.id, rt.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

// StopContainer implements cri.Engine: TERM, and after the timeout KILL.
func (e *Engine) StopContainer(ctx context.Context, r *rt.StopContainerRequest) (*rt.StopContainerResponse, error) {
	e.mu.Lock()
	c := e.containers[r.GetContainerId()]
	if c == nil || c.state != running {
		e.mu.Unlock()
		return &rt.StopContainerResponse{}, nil
	}
	closeOnce(c.term)
	e.mu.Unlock()
	timer := time.NewTimer(time.Duration(r.GetTimeout()) * time.Second)
	defer timer.Stop()
	select {
	case <-c.done:
		return &rt.StopContainerResponse{}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
	}
	e.Do(func() { closeOnce(c.kill) })
	<-c.done
	return &rt.StopContainerResponse{}, nil
}

// RemoveContainer implements cri.Engine.
func (e *Engine) RemoveContainer(_ context.Context, r *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[r.GetContainerId()]; c != nil {
		e.finish(c, codeKill)
		closeOnce(c.kill)
		delete(e.containers, c.id)
	}
	return &rt.RemoveContainerResponse{}, nil
}

// ListContainers implements cri.Engine.
func (e *Engine) ListContainers(_ context.Context, r *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListContainersResponse{}
	for _, c := range e.containers {
		if matches(c.config.GetLabels(), r.GetFilter().GetLabelSelector()) {
			out.Containers = append(out.Containers, &rt.Container{
				Id: c.id, PodSandboxId: c.box, Metadata: c.config.GetMetadata(), State: c.state,
				CreatedAt: c.created.UnixNano(), Labels: clone(c.config.GetLabels()), Annotations: clone(c.config.GetAnnotations()),
				Image: c.config.GetImage(),
			})
		}
	}
	return out, nil
}

// ContainerStatus implements cri.Engine.
func (e *Engine) ContainerStatus(_ context.Context, r *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[r.GetContainerId()]
	if c == nil {
		return nil, cri.NotFound("container %q", r.GetContainerId())
	}
	s := &rt.ContainerStatus{
		Id: c.id, Metadata: c.config.GetMetadata(), State: c.state, CreatedAt: c.created.UnixNano(), ExitCode: c.code,
		Image: c.config.GetImage(), ImageRef: "sha256:" + c.config.GetImage().GetImage(), Labels: clone(c.config.GetLabels()),
		Annotations: clone(c.config.GetAnnotations()), Mounts: c.config.GetMounts(),
	}
	if !c.started.IsZero() {
		s.StartedAt = c.started.UnixNano()
	}
	if !c.finished.IsZero() {
		s.FinishedAt = c.finished.UnixNano()
	}
	return &rt.ContainerStatusResponse{Status: s}, nil
}

// UpdateContainerResources implements cri.Engine.
func (e *Engine) UpdateContainerResources(_ context.Context, r *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.containers[r.GetContainerId()]
	if c == nil {
		return nil, cri.NotFound("container %q", r.GetContainerId())
	}
	if cpus := r.GetLinux().GetCpusetCpus(); cpus != "" && r.GetLinux().GetCpuPeriod() == 0 {
		c.config.Linux.Resources.CpusetCpus = cpus // nothing else is to change
		return &rt.UpdateContainerResourcesResponse{}, nil
	}
	c.config.Linux.Resources = r.GetLinux()
	return &rt.UpdateContainerResourcesResponse{}, nil
}

// ReopenContainerLog implements cri.Engine.
func (e *Engine) ReopenContainerLog(context.Context, *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	return nil, cri.Unimplemented("logs")
}

// ExecSync implements cri.Engine.
func (e *Engine) ExecSync(_ context.Context, r *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	e.mu.Lock()
	c, answer := e.containers[r.GetContainerId()], e.Answer
	if c == nil || c.state != running {
		e.mu.Unlock()
		return nil, cri.NotFound("container %q isn't running", r.GetContainerId())
	}
	name := c.config.GetMetadata().GetName()
	e.mu.Unlock()
	code, out := answer(name, r.GetCmd())
	return &rt.ExecSyncResponse{ExitCode: code, Stdout: []byte(out)}, nil
}
