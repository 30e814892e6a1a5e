package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Keys of operations that plan doesn't know.
const (
	opReport  = "report"
	opRefresh = "refresh volumes"
	opRelease = "release"
	opDelete  = "delete"
	opBury    = "bury"
	opMirror  = "mirror"
)

// op is one operation under way.
type op struct {
	step   plan.Step
	cancel context.CancelFunc
}

// launch runs work beside the owner. What work returns is done by the owner, on
// its own goroutine, as soon as it can: so operations change nothing themselves.
func (m *machine) launch(ctx context.Context, key string, s plan.Step, work func(context.Context) func(*machine)) {
	if m.ops[key] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	m.ops[key] = &op{step: s, cancel: cancel}
	m.a.spawn(func() {
		defer cancel()
		apply := work(ctx)
		m.mu.Lock()
		m.results = append(m.results, func(m *machine) {
			delete(m.ops, key)
			if apply != nil {
				apply(m)
			}
		})
		m.mu.Unlock()
		m.wake()
	})
}

// later has the owner do something before the operation that asks for it ends.
func (m *machine) later(apply func(*machine)) {
	m.mu.Lock()
	m.results = append(m.results, apply)
	m.mu.Unlock()
	m.wake()
}

// begin takes one planned step.
func (m *machine) begin(ctx context.Context, s plan.Step) {
	work := map[plan.Kind]func(context.Context, *corev1.Pod, plan.Step) func(*machine){
		plan.MountVolumes:    m.mountVolumes,
		plan.RunSandbox:      m.runSandbox,
		plan.StopSandbox:     m.stopSandbox,
		plan.PullImage:       m.preparePull(s.Container),
		plan.StartContainer:  m.prepareStart(),
		plan.KillContainer:   m.prepareKill(s),
		plan.WarnContainer:   m.warn,
		plan.RemoveContainer: m.removeContainer,
		plan.RemoveSandbox:   m.removeSandbox,
		plan.ResizeContainer: m.prepareResize(s),
		plan.ResizePod:       m.prepareResizeWhole(s),
	}[s.Kind]
	if s.Kind == plan.MountVolumes {
		m.stale = false // what changes from now on is news to it
	}
	pod := m.allotted()
	m.launch(ctx, s.Key(), s, func(ctx context.Context) func(*machine) { return work(ctx, pod, s) })
}

// cancelStarts gives up what would only make more to stop.
func (m *machine) cancelStarts() {
	for key, o := range m.ops {
		switch {
		case o.step.Kind == plan.RunSandbox, o.step.Kind == plan.PullImage, o.step.Kind == plan.MountVolumes, o.step.Kind == plan.StartContainer, key == opRefresh:
			o.cancel()
		}
	}
}

// event tells something about the pod.
func (m *machine) event(eventtype, reason, message string) {
	m.a.events.Event(m.pod, eventtype, reason, message)
}

// containerEvent tells something about one container of the owner's pod.
func (m *machine) containerEvent(name, eventtype, reason, message string) {
	m.a.containerEvent(m.pod, name, eventtype, reason, message)
}

// containerEvent tells something about one of a pod's containers.
func (a *Agent) containerEvent(pod *corev1.Pod, name, eventtype, reason, message string) {
	ref := client.Reference(pod)
	ref.FieldPath = spec.FieldPath(pod, name)
	a.events.EventRef(ref, eventtype, reason, message)
}
