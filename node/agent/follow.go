package agent

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/cri"
)

// relistEvery is how often an engine without events is asked what it has: upstream's
// period. An engine with events is never polled.
const relistEvery = time.Second

// follow turns the engine's events into wake-ups. When the stream breaks every
// pod is looked at once. An engine that has none is polled instead, until it can't be
// asked: the one that comes back may be another.
func (a *Agent) follow(ctx context.Context) {
	const pause = 2 * time.Second
	told := false
	for ctx.Err() == nil {
		events, err := a.cfg.Engine.Events(ctx)
		a.tally.Followed(err)
		if err != nil && !(told && cri.IsUnimplemented(err)) {
			a.cfg.Log.Warn("can't follow the engine's events", "err", err)
		}
		a.wakeAll()
		switch {
		case err == nil:
			for e := range events {
				a.wakeFor(e)
			}
		case cri.IsUnimplemented(err):
			if !told {
				a.cfg.Log.Warn("the engine is asked for changes once a second, since it has no events")
			}
			told = true
			a.relist(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// relist wakes pods of which the engine has something else than a second ago, until
// ctx ends or the engine can't be asked.
func (a *Agent) relist(ctx context.Context) {
	tick := time.NewTicker(relistEvery)
	defer tick.Stop()
	var last map[string]seen
	for {
		now, err := a.list(ctx)
		if err != nil {
			return
		}
		for uid := range moved(last, now) {
			if m := a.machine(uid); m != nil {
				m.wake()
			}
		}
		last = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// seen is a sandbox or container in a list of the engine's.
type seen struct {
	pod   types.UID
	state int32
}

// list is what the engine has, by its ids.
func (a *Agent) list(ctx context.Context) (map[string]seen, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	boxes, err := a.cfg.Engine.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := a.cfg.Engine.ListContainers(ctx, &rt.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	all := make(map[string]seen, len(boxes.GetItems())+len(containers.GetContainers()))
	for _, b := range boxes.GetItems() {
		all[b.GetId()] = seen{types.UID(b.GetLabels()[actual.LabelPodUID]), int32(b.GetState())}
	}
	for _, c := range containers.GetContainers() {
		all[c.GetId()] = seen{types.UID(c.GetLabels()[actual.LabelPodUID]), int32(c.GetState())}
	}
	return all, nil
}

// moved are the pods of which something came, went or changed its state.
func moved(last, now map[string]seen) map[types.UID]bool {
	pods := map[types.UID]bool{}
	for id, s := range now {
		if old, was := last[id]; !was || old.state != s.state {
			pods[s.pod] = true
		}
	}
	for id, s := range last {
		if _, is := now[id]; !is {
			pods[s.pod] = true
		}
	}
	return pods
}
