package engine

import (
	"context"
	"sync"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
)

// hub hands every event to every subscriber. One that does not keep up loses
// its subscription, never an event in the middle.
type hub struct {
	mu     sync.Mutex
	subs   map[chan *rt.ContainerEventResponse]bool
	closed bool
}

func (h *hub) publish(ev *rt.ContainerEventResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs {
		select {
		case c <- ev:
		default:
			delete(h.subs, c)
			close(c)
		}
	}
}

func (h *hub) subscribe() chan *rt.ContainerEventResponse {
	c := make(chan *rt.ContainerEventResponse, cri.MaxEventBacklog)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
		return c
	}
	if h.subs == nil {
		h.subs = map[chan *rt.ContainerEventResponse]bool{}
	}
	h.subs[c] = true
	return c
}

func (h *hub) unsubscribe(c chan *rt.ContainerEventResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[c] {
		delete(h.subs, c)
		close(c)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.subs {
		close(c)
	}
	h.subs = nil
}

// Events subscribes to what happens to sandboxes and containers. An event about
// a sandbox has the sandbox's ID for the container's, as containerd has it.
func (e *Engine) Events(ctx context.Context) (<-chan *rt.ContainerEventResponse, error) {
	c := e.hub.subscribe()
	context.AfterFunc(ctx, func() { e.hub.unsubscribe(c) })
	return c, nil
}

// announce publishes what is true at this moment.
func (e *Engine) announce(sandboxID, id string, what rt.ContainerEventType) {
	e.hub.publish(e.snapshotOf(sandboxID, id, what))
}

// snapshotOf is an event with the sandbox's and its containers' statuses. For a
// deletion it is taken before, while there is something to say.
func (e *Engine) snapshotOf(sandboxID, id string, what rt.ContainerEventType) *rt.ContainerEventResponse {
	ev := &rt.ContainerEventResponse{ContainerId: id, ContainerEventType: what, CreatedAt: time.Now().UnixNano()}
	if s := e.records.sandbox(sandboxID); s != nil {
		ev.PodSandboxStatus = s.status()
		ev.ContainersStatuses = e.statusesOf(sandboxID)
	}
	return ev
}

// follow turns exits into events until the runtime or the engine is closed.
func (e *Engine) follow(exits <-chan container.Exit) {
	for x := range exits {
		if c := e.records.container(x.ID); c != nil {
			e.announce(c.SandboxID, c.ID, rt.ContainerEventType_CONTAINER_STOPPED_EVENT)
		}
	}
}
