// Package agenttest is for tests of the node's agent: a small real container
// engine that lives in memory. Its containers are goroutines that run Programs,
// its time is whatever the test's clock says, so that inside testing/synctest an
// hour of restarts takes no time. It keeps the CRI's rules about order, names
// and idempotency; it makes no namespaces, mounts nothing and serves no streams.
package agenttest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// Process is what a Program sees of its container.
type Process struct {
	Config  *rt.ContainerConfig
	Attempt uint32
	// Term closes when the container is asked to stop, Kill when it must.
	Term, Kill <-chan struct{}
}

// Program is what an image does: it returns the exit code.
type Program func(p *Process) int32

// Exit codes of signals.
const (
	codeTerm = 143
	codeKill = 137
)

// Serve runs until it is asked to stop.
func Serve(p *Process) int32 {
	select {
	case <-p.Term:
		return codeTerm
	case <-p.Kill:
		return codeKill
	}
}

// Stubborn runs until it is killed.
func Stubborn(p *Process) int32 {
	<-p.Kill
	return codeKill
}

// Exit ends by itself after a while.
func Exit(after time.Duration, code int32) Program {
	return func(p *Process) int32 {
		timer := time.NewTimer(after)
		defer timer.Stop()
		select {
		case <-timer.C:
			return code
		case <-p.Term:
			return codeTerm
		case <-p.Kill:
			return codeKill
		}
	}
}

// Engine is an in-memory cri.Engine.
type Engine struct {
	// The fields are set before use and may be changed under Do.

	// Images are the images at hand, by name; Registry those that can be pulled.
	Images, Registry map[string]Program
	// Private are the passwords that the registry wants for some of its images.
	Private map[string]string
	// Below are the images that checkpoints were made of, by the images that hold those.
	Below map[string]string
	// PullTime is how long a pull takes.
	PullTime time.Duration
	// Answer is what ExecSync comes to: exit code and output.
	Answer func(container string, cmd []string) (int32, string)
	// Memory is what pods use, by name, and their containers, by "pod/container"; Pinned are images that may not go.
	Memory map[string]uint64
	Pinned map[string]bool
	// StreamURL is what Exec hands out.
	StreamURL string
	// FailSandbox, when not nil, is what RunPodSandbox answers.
	FailSandbox error
	// Mute: there are no events; Asked is how often somebody wanted them.
	Mute  bool
	Asked int

	mu         sync.Mutex
	next       int
	sandboxes  map[string]*sandbox
	containers map[string]*container
	subs       map[chan *rt.ContainerEventResponse]bool
	podCIDR    string
	wg         sync.WaitGroup
}

type sandbox struct {
	id      string
	config  *rt.PodSandboxConfig
	created time.Time
	ready   bool
	ip      string
}

type container struct {
	id, box    string
	config     *rt.ContainerConfig
	state      rt.ContainerState
	created    time.Time
	started    time.Time
	finished   time.Time
	code       int32
	term, kill chan struct{}
	done       chan struct{}
}

// New returns an empty engine that has the images app (serves), once (ends well
// at once) and crash (ends badly at once).
func New() *Engine {
	return &Engine{
		Images:    map[string]Program{"app": Serve, "once": Exit(0, 0), "crash": Exit(0, 1)},
		Registry:  map[string]Program{},
		Answer:    func(string, []string) (int32, string) { return 0, "" },
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, subs: map[chan *rt.ContainerEventResponse]bool{},
	}
}

// Do changes the engine's fields safely.
func (e *Engine) Do(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fn()
}

// Close kills everything and waits for it.
func (e *Engine) Close() {
	e.mu.Lock()
	for _, c := range e.containers {
		closeOnce(c.kill)
	}
	e.mu.Unlock()
	e.wg.Wait()
}

// Resources are those of a pod's newest container of a name; nil when there is
// none.
func (e *Engine) Resources(pod, name string) *rt.LinuxContainerResources {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.config.GetMetadata().GetName() == name && e.sandboxes[c.box].config.GetMetadata().GetName() == pod && c.state == running {
			return proto.CloneOf(c.config.GetLinux().GetResources())
		}
	}
	return nil
}

// Crash ends the named container of a pod at once with a code, as if its process
// had; it panics when none runs.
func (e *Engine) Crash(pod, name string, code int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.config.GetMetadata().GetName() == name && e.sandboxes[c.box].config.GetMetadata().GetName() == pod && c.state == running {
			e.finish(c, code)
			closeOnce(c.kill)
			return
		}
	}
	panic(fmt.Sprintf("agenttest: no running container %s/%s", pod, name))
}

// Forget ends everything and knows nothing of it any more, as when the node is
// taken down and up again.
func (e *Engine) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.sandboxes {
		e.stopSandbox(b)
	}
	clear(e.containers)
	clear(e.sandboxes)
}

// LoseSandbox ends a pod's sandbox and all in it, as a reboot does.
func (e *Engine) LoseSandbox(pod string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.sandboxes {
		if b.config.GetMetadata().GetName() == pod && b.ready {
			e.stopSandbox(b)
		}
	}
}

// Running lists the running containers as pod/container#attempt.
func (e *Engine) Running() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for _, c := range e.containers {
		if c.state == running {
			m := c.config.GetMetadata()
			list = append(list, fmt.Sprintf("%s/%s#%d", e.sandboxes[c.box].config.GetMetadata().GetName(), m.GetName(), m.GetAttempt()))
		}
	}
	return list
}

// Empty reports whether nothing of any pod is left.
func (e *Engine) Empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sandboxes)+len(e.containers) == 0
}

// PodCIDR is the pods' network as the engine was told it.
func (e *Engine) PodCIDR() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.podCIDR
}

// Container returns the configuration of the newest container of that name.
func (e *Engine) Container(pod, name string) *rt.ContainerConfig {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found *container
	for _, c := range e.containers {
		if c.config.GetMetadata().GetName() != name || e.sandboxes[c.box].config.GetMetadata().GetName() != pod {
			continue
		}
		if found == nil || c.config.GetMetadata().GetAttempt() > found.config.GetMetadata().GetAttempt() {
			found = c
		}
	}
	if found == nil {
		return nil
	}
	return found.config
}

const (
	created = rt.ContainerState_CONTAINER_CREATED
	running = rt.ContainerState_CONTAINER_RUNNING
	exited  = rt.ContainerState_CONTAINER_EXITED
)

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

func (e *Engine) id(prefix string) string {
	e.next++
	return fmt.Sprintf("%s%d", prefix, e.next)
}

// tell publishes an event. The caller holds the lock.
func (e *Engine) tell(b *sandbox, id string, what rt.ContainerEventType) {
	ev := &rt.ContainerEventResponse{
		ContainerId: id, ContainerEventType: what, CreatedAt: time.Now().UnixNano(), PodSandboxStatus: b.status(),
	}
	for sub := range e.subs {
		select {
		case sub <- ev:
		default:
			delete(e.subs, sub)
			close(sub)
		}
	}
}

// Events implements cri.Engine.
func (e *Engine) Events(ctx context.Context) (<-chan *rt.ContainerEventResponse, error) {
	sub := make(chan *rt.ContainerEventResponse, cri.MaxEventBacklog)
	e.mu.Lock()
	e.Asked++
	if e.Mute {
		e.mu.Unlock()
		return nil, cri.Unimplemented("events")
	}
	e.subs[sub] = true
	e.mu.Unlock()
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.subs[sub] {
			delete(e.subs, sub)
			close(sub)
		}
	})
	return sub, nil
}

func matches(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// Version implements cri.Engine.
func (e *Engine) Version(context.Context, *rt.VersionRequest) (*rt.VersionResponse, error) {
	return &rt.VersionResponse{Version: "v1", RuntimeName: "memory", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status implements cri.Engine: the network is ready once it has been told the
// pods' addresses.
func (e *Engine) Status(context.Context, *rt.StatusRequest) (*rt.StatusResponse, error) {
	network := &rt.RuntimeCondition{Type: "NetworkReady", Status: true}
	if e.PodCIDR() == "" {
		network = &rt.RuntimeCondition{Type: "NetworkReady", Reason: "NoPodCIDR", Message: "no pod network yet"}
	}
	return &rt.StatusResponse{Status: &rt.RuntimeStatus{Conditions: []*rt.RuntimeCondition{{Type: "RuntimeReady", Status: true}, network}}}, nil
}

// UpdateRuntimeConfig implements cri.Engine.
func (e *Engine) UpdateRuntimeConfig(_ context.Context, r *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error) {
	e.Do(func() { e.podCIDR = r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr() })
	return &rt.UpdateRuntimeConfigResponse{}, nil
}

// RuntimeConfig implements cri.Engine.
func (e *Engine) RuntimeConfig(context.Context, *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error) {
	return &rt.RuntimeConfigResponse{Linux: &rt.LinuxRuntimeConfiguration{CgroupDriver: rt.CgroupDriver_CGROUPFS}}, nil
}

func clone(m map[string]string) map[string]string { return maps.Clone(m) }
