package agent

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/status"
)

// What pods and the node say of a shutdown, upstream's words.
const (
	shutdownReason  = "Terminated"
	shutdownMessage = "Pod was terminated in response to imminent node shutdown."
	shutdownRefused = "NodeShutdown"
	shutdownFault   = "node is shutting down"
	shutdownSeen    = "Shutdown manager detected shutdown event"
)

// systemCritical is the lowest priority of pods that are ended last.
const systemCritical = 2_000_000_000

// shutdownFile is where the node's last going down is told of, beneath the kubelet's
// directory: upstream's place and form.
const shutdownFile = "graceful_node_shutdown_state"

// lastShutdown is that file: End is zero while the pods are ending, and remains so of a
// machine that did not wait for them.
type lastShutdown struct {
	Start time.Time `json:"startTime"`
	End   time.Time `json:"endTime"`
}

// downfall tells whether the node is going down.
type downfall struct{ begun atomic.Bool }

// group is a set of pods that are ended together.
type group struct {
	priority int32
	period   time.Duration
	pods     []*corev1.Pod
}

// groups sorts pods into the groups that the configuration has, the least
// important first: a pod is of the group with the highest priority that isn't
// above its own, or of the lowest.
func groups(k *settings.Kubelet, pods []*corev1.Pod) []group {
	periods := k.ShutdownGracePeriodByPodPriority
	if total := k.ShutdownGracePeriod.Duration; len(periods) == 0 && total > 0 {
		critical := k.ShutdownGracePeriodCriticalPods.Duration
		periods = []kubeletv1beta1.ShutdownGracePeriodByPodPriority{
			{Priority: 0, ShutdownGracePeriodSeconds: int64((total - critical) / time.Second)},
			{Priority: systemCritical, ShutdownGracePeriodSeconds: int64(critical / time.Second)},
		}
	}
	var list []group
	for _, p := range periods {
		list = append(list, group{priority: p.Priority, period: time.Duration(p.ShutdownGracePeriodSeconds) * time.Second})
	}
	slices.SortStableFunc(list, func(a, b group) int { return cmp.Compare(a.priority, b.priority) })
	if len(list) == 0 {
		return nil
	}
	for _, p := range pods {
		at := 0
		for i := range list {
			if list[i].priority <= pressure.Priority(p) {
				at = i
			}
		}
		list[at].pods = append(list[at].pods, p)
	}
	return list
}

// runShutdown ends the node's pods when the Config says that the node goes down.
func (a *Agent) runShutdown(ctx context.Context) error {
	a.recallShutdown()
	select {
	case <-a.cfg.Ending:
		a.shutdown(ctx)
	case <-ctx.Done():
	}
	return nil
}

// shutdown ends all pods, group by group, each within its period; nothing new is
// taken, and the node says that it isn't ready. It does nothing when the
// configuration gives no time for it.
func (a *Agent) shutdown(ctx context.Context) {
	list := groups(a.cfg.Kubelet, a.placed(""))
	if list == nil {
		a.cfg.Log.Warn("the node goes down; its pods are left alone, since the configuration has no shutdownGracePeriod")
		return
	}
	a.falling.begun.Store(true)
	a.events.EventRef(a.registry.Reference(), corev1.EventTypeNormal, shutdownRefused, shutdownSeen)
	a.registry.Kick()
	begin := time.Now()
	a.goesDown(lastShutdown{Start: begin})
	for _, g := range list {
		a.cfg.Log.Info("ending pods, since the node goes down", "priority", g.priority, "pods", len(g.pods), "period", g.period)
		a.endGroup(ctx, g)
	}
	a.goesDown(lastShutdown{Start: begin, End: time.Now()})
	a.cfg.Log.Info("the node's pods have been ended", "after", time.Since(begin))
}

// goesDown tells of the node's going down, in figures and, since those who want to know
// mostly ask when the machine is up again, in a file.
func (a *Agent) goesDown(now lastShutdown) {
	if !a.cfg.gates.On("GracefulNodeShutdownBasedOnPodPriority") {
		return
	}
	a.tally.GoesDown(now.Start, now.End)
	if err := atomicfile.WriteJSON(filepath.Join(a.cfg.KubeletRoot, shutdownFile), now); err != nil {
		a.cfg.Log.Warn("the node's going down is not remembered", "err", err)
	}
}

// recallShutdown has the figures tell of the last time that the node went down.
func (a *Agent) recallShutdown() {
	var last lastShutdown
	err := atomicfile.ReadJSON(filepath.Join(a.cfg.KubeletRoot, shutdownFile), &last)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		a.cfg.Log.Warn("when the node went down last is not known", "err", err)
	case err == nil && !last.Start.IsZero() && a.cfg.gates.On("GracefulNodeShutdownBasedOnPodPriority"):
		a.tally.GoesDown(last.Start, last.End)
	}
}

// endGroup returns when the group's pods are down, or its period is over.
func (a *Agent) endGroup(ctx context.Context, g group) {
	ctx, cancel := context.WithTimeout(ctx, g.period)
	defer cancel()
	var going []*machine
	for _, p := range g.pods {
		m := a.machine(p.UID)
		if m == nil {
			continue
		}
		grace := min(g.period, time.Duration(spec.Grace(p))*time.Second)
		m.finishOff(ending{grace: grace, verdict: status.Verdict{Reason: shutdownReason, Message: shutdownMessage, Disruption: shutdownMessage}})
		going = append(going, m)
	}
	for _, m := range going {
		m.awaitEnd(ctx, g.period)
	}
}

// refuseFalling keeps new pods off a node that goes down.
func (a *Agent) refuseFalling() *admit.Refusal {
	if !a.falling.begun.Load() {
		return nil
	}
	return admit.Refuse(shutdownRefused, "Pod was rejected as the node is shutting down.")
}

// fault is what is wrong with the node besides its engine, "" for nothing.
func (a *Agent) fault() string {
	if a.falling.begun.Load() {
		return shutdownFault
	}
	return ""
}
