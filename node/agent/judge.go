package agent

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/status"
)

// reject ends a pod that the node didn't take, before anything was made for it.
func (m *machine) reject() {
	m.fatal = &status.Verdict{Reason: m.verdict.Reason, Message: m.verdict.Message}
	m.event(corev1.EventTypeWarning, m.verdict.Reason, m.verdict.Said())
	m.leave()
}

// leave gives the pod's room on the node back and begins to stop it.
func (m *machine) leave() {
	m.mu.Lock()
	m.holds = nil
	m.mu.Unlock()
	m.a.roomLeft(podEnded)
	if m.stage < stopping {
		m.stage = stopping
	}
	if m.stop == nil {
		m.grace = spec.Grace(m.pod)
		m.stop = &plan.Stop{Deadline: time.Now().Add(time.Duration(m.grace) * time.Second)}
	}
	m.cancelStarts()
	m.a.refs.release(m.uid)
}

// judge finds reasons to bring the pod down, or to do it faster.
func (m *machine) judge(again *alarm) {
	if m.stop != nil {
		m.hasten()
		return
	}
	phase := m.pod.Status.Phase
	if m.gone || m.pod.DeletionTimestamp != nil || phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		m.leave()
		return
	}
	if !m.doubted.IsZero() && m.returns(again) {
		return
	}
	if limit := m.pod.Spec.ActiveDeadlineSeconds; limit != nil && m.status.StartTime != nil {
		end := m.status.StartTime.Add(time.Duration(*limit) * time.Second)
		if time.Now().Before(end) {
			again.by(end)
			return
		}
		m.fatal = &status.Verdict{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
		m.event(corev1.EventTypeNormal, m.fatal.Reason, m.fatal.Message)
		m.leave()
	}
}

// devicesBack is how long a pod that lost its containers while no agent was there, as by
// a reboot, waits for the plugins of its devices, some of which are pods themselves.
// Upstream doesn't wait at all, and refuses pods whose plugins begin a moment later.
const devicesBack = 30 * time.Second

// returns judges a pod that lost its sandbox while no agent was there, and reports
// whether it ended. One whose containers may not run again has ended by that: it gets no
// new ones. So has one whose devices don't come back; it is refused, since somewhere else
// there may be others. Who can't run again has nothing to wait for, but is told of the
// devices too, as upstream, which admits pods before it looks for their containers; what
// ended well has ended well.
func (m *machine) returns(again *alarm) bool {
	phase := m.compute(nil).Phase
	err := m.a.places.devices.Missing(string(m.uid))
	if end := m.doubted.Add(devicesBack); err != nil && phase != corev1.PodFailed && phase != corev1.PodSucceeded && time.Now().Before(end) {
		again.by(end)
		return false
	}
	m.doubted = time.Time{}
	switch {
	case phase == corev1.PodSucceeded || err == nil && phase == corev1.PodFailed:
		m.leave()
	case err != nil:
		m.verdict = admit.Refuse(numa.ErrUnexpected, fmt.Sprintf("Allocate failed due to %v, which is unexpected", err))
		m.a.tally.PodRefused(m.verdict.Reason)
		m.reject()
	default:
		return false
	}
	return true
}

// hasten shortens the time to stop when the API does; it never lengthens it.
func (m *machine) hasten() {
	grace := spec.Grace(m.pod)
	if m.pod.DeletionTimestamp == nil || grace >= m.grace {
		return
	}
	m.grace = grace
	if end := time.Now().Add(time.Duration(grace) * time.Second); end.Before(m.stop.Deadline) {
		m.stop.Deadline = end
		for _, o := range m.ops {
			if o.step.Kind == plan.KillContainer || o.step.Kind == plan.WarnContainer {
				o.cancel()
			}
		}
	}
}

// decide asks plan what may begin now, and begins it.
func (m *machine) decide(ctx context.Context, again *alarm, waiting map[string]plan.Waiting) {
	if m.stage == serving {
		m.a.refs.acquire(m.pod)
	}
	now := time.Now()
	m.makeRoom()
	d := plan.Next(plan.Input{
		Pod: m.allotted(), Actual: m.now, Now: now, Stop: m.stop, Mounted: m.allMounted(), Busy: m.busy(now),
		Images: m.imagesReady(), Failures: m.failures, Crashes: m.crashes, Attempts: m.attempts(), Verdicts: m.verdicts(), HoldSandbox: m.holdBox,
		Given: m.given, HoldResize: m.holdResize, Killed: m.killed,
	})
	m.explain(d.Waiting, waiting)
	m.tellBackOff(d.Waiting)
	again.by(d.Again)
	again.by(m.holdMount)
	for _, s := range d.Steps {
		m.begin(ctx, s)
	}
	switch {
	case d.Stopped:
		m.ended = true
		m.stage = releasing
		close(m.down)
	case d.Finished && len(m.ops) == 0:
		m.leave()
	}
	if m.stage == serving {
		m.refresh(ctx, again)
	}
}

// attempts are the numbers that containers get which the engine knows nothing of.
func (m *machine) attempts() map[string]int32 {
	next := map[string]int32{}
	for _, list := range [][]corev1.ContainerStatus{m.status.InitContainerStatuses, m.status.ContainerStatuses} {
		for i := range list {
			if m.now.Latest(list[i].Name) == nil {
				next[list[i].Name] = status.NextAttempt(&list[i])
			}
		}
	}
	return next
}

// explain says why containers wait. What was said last stands until the
// container has been started, so that an attempt that fails again changes
// nothing.
func (m *machine) explain(now, waiting map[string]plan.Waiting) {
	maps.Copy(m.shown, now)
	for name, f := range m.failures {
		m.shown[name] = f.Waiting
	}
	clear(waiting)
	maps.Copy(waiting, m.shown)
	maps.Copy(waiting, now)
}

// busy are the keys of operations under way, and of the mount that must wait:
// for its time, or for a refresh of the same volumes.
func (m *machine) busy(now time.Time) map[string]bool {
	keys := make(map[string]bool, len(m.ops)+1)
	for k := range m.ops {
		keys[k] = true
	}
	if m.stage == serving && (now.Before(m.holdMount) || m.ops[opRefresh] != nil) {
		keys[string(plan.MountVolumes)] = true
	}
	delete(keys, opReport)
	delete(keys, opMirror)
	return keys
}

func (m *machine) imagesReady() map[string]bool {
	ready := make(map[string]bool, len(m.images))
	for use := range m.images {
		if use.volume == "" { // which is fetched last
			ready[use.container] = true
		}
	}
	return ready
}

func (m *machine) verdicts() map[string]plan.Verdict {
	all := map[string]plan.Verdict{}
	for _, c := range spec.Containers(m.pod) {
		now := m.now.Latest(c.Name)
		if now == nil {
			continue
		}
		failed, grace := m.probes.Failed(c, now.ID)
		all[now.ID] = plan.Verdict{Started: m.probes.Started(c, now.ID), Failed: string(failed), Grace: grace}
	}
	return all
}

// tellBackOff announces a crash loop once for each time a container is held.
func (m *machine) tellBackOff(waiting map[string]plan.Waiting) {
	for name, w := range waiting {
		last := m.now.Latest(name)
		if w.Reason != "CrashLoopBackOff" || last == nil || m.told[name].Equal(last.Finished) {
			continue
		}
		m.told[name] = last.Finished
		m.containerEvent(name, corev1.EventTypeWarning, "BackOff",
			"Back-off restarting failed container "+name+" in pod "+spec.FullName(m.pod))
	}
}

// older reports whether resource version a came before b.
func older(a, b string) bool {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	return errA == nil && errB == nil && x < y
}

// metaChanged reports whether something changed that volumes may show.
func metaChanged(a, b *corev1.Pod) bool {
	return !maps.Equal(a.Labels, b.Labels) || !maps.Equal(a.Annotations, b.Annotations)
}
