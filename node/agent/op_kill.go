package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// minKill is what a container gets after TERM even when its preStop hook has
// used the whole grace period up.
const minKill = 2 * time.Second

// killSlack is how much longer than the grace period the engine may take.
const killSlack = time.Minute

// prepareKill notes, on the owner's goroutine, that the container is killed, and so
// that the hook won't run again.
func (m *machine) prepareKill(s plan.Step) func(context.Context, *corev1.Pod, plan.Step) func(*machine) {
	hooked := m.killed.Has(s.ID)
	if !hooked && (s.Kind == plan.KillContainer || s.Kind == plan.WarnContainer) {
		m.killed[s.ID] = s.Again
	}
	return func(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
		return m.kill(ctx, pod, s, hooked)
	}
}

// warn tells that a container will be stopped and runs its preStop hook.
func (m *machine) warn(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
	message := s.Message
	if message == "" {
		message = "Stopping container " + s.Container
	}
	m.a.containerEvent(pod, s.Container, corev1.EventTypeNormal, "Killing", message)
	m.preStop(ctx, pod, s)
	return nil
}

// kill brings a container down, and tells when it can't.
func (m *machine) kill(ctx context.Context, pod *corev1.Pod, s plan.Step, hooked bool) func(*machine) {
	if err := m.bringDown(ctx, pod, s, hooked); err != nil && ctx.Err() == nil {
		m.a.events.Event(pod, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+cri.Message(err))
		pause(ctx, boxRetry.Min)
	}
	return nil
}

// bringDown runs the preStop hook, unless that was done before, and stops the
// container within what is left of its grace period.
func (m *machine) bringDown(ctx context.Context, pod *corev1.Pod, s plan.Step, hooked bool) error {
	begin := time.Now()
	if !hooked {
		m.warn(ctx, pod, s)
	}
	left := max(s.Grace-time.Since(begin), minKill)
	callCtx, cancel := context.WithTimeout(ctx, left+killSlack)
	defer cancel()
	seconds := int64((left + time.Second - 1) / time.Second)
	_, err := m.a.cfg.Engine.StopContainer(callCtx, &rt.StopContainerRequest{ContainerId: s.ID, Timeout: seconds})
	return err
}

func (m *machine) preStop(ctx context.Context, pod *corev1.Pod, s plan.Step) {
	c := spec.Container(pod, s.Container)
	if c == nil || c.Lifecycle == nil || c.Lifecycle.PreStop == nil || s.Grace <= 0 {
		return
	}
	run := func(hookCtx context.Context) {
		err := m.a.doer.Hook(hookCtx, pod, s.Container, s.ID, c.Lifecycle.PreStop)
		if s.Kind == plan.StartContainer && ctx.Err() != nil {
			return // the pod is deleted meanwhile: whoever stops it runs the hook again
		}
		if err != nil {
			m.log.Info("a preStop hook failed", "container", s.Container, "err", err)
			m.a.containerEvent(pod, s.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
	}
	if c.Lifecycle.PreStop.Exec == nil || s.Kind == plan.StartContainer {
		hookCtx, cancel := context.WithTimeout(ctx, s.Grace)
		defer cancel()
		run(hookCtx)
		return
	}
	m.besides(s.Grace, run)
}

// besides waits for a hook for so long and no longer. What it has started in the
// container isn't ended then: it goes with the container, as upstream has it, which has
// a moment more.
func (m *machine) besides(patience time.Duration, run func(context.Context)) {
	ctx, cancel := context.WithTimeout(m.life, patience+minKill+killSlack)
	done := make(chan struct{})
	m.a.spawn(func() {
		defer close(done)
		defer cancel()
		run(ctx)
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (m *machine) removeContainer(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := m.a.cfg.Engine.RemoveContainer(ctx, &rt.RemoveContainerRequest{ContainerId: s.ID}); err != nil {
		m.log.Warn("can't remove an old container", "container", s.ID, "err", err)
		pause(ctx, boxRetry.Max)
		return nil
	}
	m.a.unlink(pod.Name, pod.Namespace, s.Container, s.ID)
	return nil
}
