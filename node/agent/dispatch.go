package agent

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/clock"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/static"
)

// inbox collects the pods that changed until the dispatcher takes them. It
// holds at most one entry a pod, so it needs no other bound.
type inbox struct {
	mu      *sync.Mutex
	changed map[types.UID]change
	bell    chan struct{}
}

// change is a pod's newest state; gone when the API has it no more. A static pod may
// come again, the very same: it was gone in between.
type change struct {
	pod   *corev1.Pod
	gone  bool
	again bool
}

func newInbox() inbox {
	return inbox{mu: &sync.Mutex{}, changed: map[types.UID]change{}, bell: make(chan struct{}, 1)}
}

func (b *inbox) put(old, pod *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A pod that was replaced under its name between two looks is two pods.
	if old != nil && (pod == nil || pod.UID != old.UID) {
		b.changed[old.UID] = change{pod: old, gone: true}
	}
	if pod != nil {
		before := b.changed[pod.UID]
		b.changed[pod.UID] = change{pod: pod, again: static.Is(pod) && (before.gone || before.again)}
	}
	b.ring()
}

func (b *inbox) ring() {
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

// take empties the inbox, but for the API's pods unless all is asked for: static
// pods first, and then the oldest, so that admission is fair.
func (b *inbox) take(all bool) []change {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []change
	for uid, c := range b.changed {
		if all || static.Is(c.pod) {
			list = append(list, c)
			delete(b.changed, uid)
		}
	}
	slices.SortFunc(list, func(x, y change) int {
		return cmp.Or(-cmp.Compare(one(static.Is(x.pod)), one(static.Is(y.pod))), x.pod.CreationTimestamp.Compare(y.pod.CreationTimestamp.Time), cmp.Compare(x.pod.UID, y.pod.UID))
	})
	return list
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// dispatch hands every change to the owner of its pod, making owners for new
// pods, until ctx ends. Until the API's word is complete static pods alone come
// in. It fails when serving did before that.
func (a *Agent) dispatch(ctx context.Context, serveErr <-chan error) error {
	a.enforce()
	synced, ready := a.synced(ctx), false
	jumps := clock.From(ctx)
	jumped := jumps.Next()
	for {
		select {
		case <-jumped: // what pods hold until a time of day may have ended
			jumped = jumps.Next()
			a.refreshAll()
		case <-synced:
			synced, ready = nil, true
			a.adopt(ctx)
			a.wakeAll() // static pods may be shown now
			a.inbox.ring()
		case <-a.inbox.bell:
			for _, c := range a.inbox.take(ready) {
				a.deliver(ctx, c)
			}
			if ready {
				a.roster.Complete()
				a.unmirror(ctx)
			}
			a.share()
		case err := <-serveErr:
			if !ready {
				return err
			}
			a.cfg.Log.Error("the kubelet API stopped listening", "err", err)
			serveErr = nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Agent) deliver(ctx context.Context, c change) {
	if c.gone {
		delete(a.waited, c.pod.UID)
	}
	m := a.machine(c.pod.UID)
	if m != nil && c.again {
		m.want(c.pod, true)
		c.again = false // from here on it is the one that comes
	}
	if m != nil && (c.gone || !m.leaving()) {
		m.want(c.pod, c.gone)
		return
	}
	if c.gone {
		return
	}
	if a.named(c.pod.Namespace, c.pod.Name) != nil {
		// The pod that had this name is still being brought down here: two pods
		// of one name must never run at once. Its end rings the bell again. A static
		// pod whose manifest went and came back is even the same by its UID.
		a.inbox.mu.Lock()
		if _, newer := a.inbox.changed[c.pod.UID]; !newer {
			a.inbox.changed[c.pod.UID] = c
		}
		a.inbox.mu.Unlock()
		if m != nil {
			a.waited[c.pod.UID] = m
		}
		if a.named(c.pod.Namespace, c.pod.Name) == nil {
			a.inbox.ring() // it ended before it could see that somebody waits
		}
		return
	}
	m = newMachine(a, c.pod)
	if before := a.waited[c.pod.UID]; before != nil {
		delete(a.waited, c.pod.UID)
		a.tally.PodRestarted(m.static)
		m.goOn(before)
	}
	a.roster.Begin(c.pod)
	if !settledBefore(c.pod) {
		a.mark(m.uid, "see pod", "on node "+a.cfg.NodeName, time.Now())
		m.verdict, m.fresh = a.admit(c.pod), true
	}
	a.start(ctx, m)
}

// settledBefore: a pod that has run here was admitted then, and isn't judged
// again after a restart of the agent.
func settledBefore(pod *corev1.Pod) bool {
	return pod.Status.StartTime != nil || pod.DeletionTimestamp != nil ||
		pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (a *Agent) start(ctx context.Context, m *machine) {
	a.mu.Lock()
	a.machines[m.uid] = m
	a.mu.Unlock()
	a.spawn(func() {
		m.run(ctx)
		a.mu.Lock()
		delete(a.machines, m.uid)
		a.mu.Unlock()
		a.roster.Remove(m.uid)
		// Whoever waited for the name may come in.
		a.inbox.ring()
	})
}

// adopt makes owners for sandboxes of pods that the API doesn't know, so that
// they are brought down, and removes directories of pods that nobody knows.
func (a *Agent) adopt(ctx context.Context) {
	known := map[string]bool{}
	for _, p := range a.pods.List() {
		known[string(p.UID)] = true
	}
	a.statics.mu.Lock()
	for uid := range a.statics.pods {
		known[string(uid)] = true
	}
	a.statics.mu.Unlock()
	a.places.keep(known)
	defer func() { a.abandon(ctx, known) }() // orphans are known by then, and see to it themselves
	boxes, err := a.cfg.Engine.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{})
	if err != nil {
		a.cfg.Log.Error("can't list sandboxes; orphans stay until the next start", "err", err)
		return
	}
	for _, b := range boxes.GetItems() {
		uid := b.GetLabels()[actual.LabelPodUID]
		if uid == "" || known[uid] {
			continue
		}
		known[uid] = true
		a.tally.PodOrphaned()
		a.cfg.Log.Info("bringing an orphaned pod down", "pod", b.GetMetadata().GetName(), "namespace", b.GetMetadata().GetNamespace(), "uid", uid)
		a.start(ctx, orphan(a, b))
	}
	a.sweep(known)
}

// sweep removes the directories of pods that nobody knows.
func (a *Agent) sweep(known map[string]bool) {
	orphans, err := a.volumes.Orphans(func(uid string) bool { return known[uid] })
	failed := 0
	for _, uid := range orphans {
		if one := a.volumes.Remove(uid); one != nil {
			err = errors.Join(err, one)
			failed++
		}
	}
	a.tally.Swept(len(orphans)-failed, failed)
	a.made.heed()
	logs, readErr := os.ReadDir(a.cfg.LogRoot)
	err = errors.Join(err, readErr)
	for _, dir := range logs {
		// Named namespace_name_uid; neither of the former has an underscore.
		if parts := strings.Split(dir.Name(), "_"); len(parts) == 3 && !known[parts[2]] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(a.cfg.LogRoot, dir.Name())))
		}
	}
	if err = errors.Join(err, sweepLinks(a.cfg.LogRoot, false)); err != nil {
		a.cfg.Log.Error("can't remove everything that forgotten pods left", "err", err)
	}
}

// orphan makes an owner from what a sandbox says about its pod.
func orphan(a *Agent, b *rt.PodSandbox) *machine {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: b.GetMetadata().GetName(), Namespace: b.GetMetadata().GetNamespace(), UID: types.UID(b.GetLabels()[actual.LabelPodUID]),
	}}
	if grace, err := strconv.ParseInt(b.GetAnnotations()[actual.AnnotationGracePeriod], 10, 64); err == nil {
		pod.Spec.TerminationGracePeriodSeconds = &grace
	}
	m := newMachine(a, pod)
	m.unknown = true
	m.want(pod, true)
	return m
}

func (a *Agent) wakeFor(e *rt.ContainerEventResponse) {
	if at := e.GetCreatedAt(); at > 0 {
		a.tally.EventTook(time.Since(time.Unix(0, at)))
	}
	uid := e.GetPodSandboxStatus().GetMetadata().GetUid()
	if uid == "" {
		uid = e.GetPodSandboxStatus().GetLabels()[actual.LabelPodUID]
	}
	if uid == "" {
		a.wakeAll()
		return
	}
	if m := a.machine(types.UID(uid)); m != nil {
		m.wake()
	}
}

func (a *Agent) wakeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.machines {
		m.wake()
	}
}

// refreshAll has the volumes of all pods brought up to date.
func (a *Agent) refreshAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.machines {
		m.refsChanged()
	}
}

// wakeNamed tells the pods that use a ConfigMap or Secret that it has changed.
func (a *Agent) wakeNamed(users []types.UID) {
	for _, uid := range users {
		if m := a.machine(uid); m != nil {
			m.refsChanged()
		}
	}
}
