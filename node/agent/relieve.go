package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/garbage"
	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/status"
	"github.com/sampan-dev/sampan/node/agent/usage"
)

// Rhythm of eviction, upstream's.
const (
	lookEvery = 10 * time.Second
	// lookAfter follows an eviction.
	lookAfter = 5 * time.Second
	// hardGrace is what an evicted pod gets when a hard threshold is crossed.
	hardGrace = time.Second
	// goneWithin is how long the next look waits for an evicted pod to be gone.
	goneWithin = 30 * time.Second
)

// strain is what the node is short of.
type strain struct {
	observe    func() pressure.Observations
	thresholds []pressure.Threshold
	machine    pressure.Machine
	watch      *pressure.Watch
	flows      func() (pressure.Flows, bool) // nil where there is no machine
	crowd      pressure.Crowd
	// helpless is what no pod's end relieves, told once; of the one goroutine that relieves.
	helpless pressure.Signal

	mu  sync.Mutex
	now []corev1.NodeConditionType
}

func newStrain(cfg Config) (*strain, error) {
	list, err := pressure.Parse(cfg.Kubelet)
	if err != nil {
		return nil, fmt.Errorf("agent: kubelet configuration: %w", err)
	}
	s := &strain{observe: cfg.Observe, thresholds: list, machine: pressure.Machine{Node: cfg.Root}}
	s.watch = pressure.NewWatch(list, cfg.Kubelet.EvictionPressureTransitionPeriod.Duration)
	if s.observe == nil && cfg.Capacity == nil {
		s.observe = func() pressure.Observations { return s.machine.Observe() }
		s.flows = func() (pressure.Flows, bool) { return s.machine.Flows() }
	}
	return s, nil
}

// pressures are the conditions that the node reports.
func (a *Agent) pressures() []corev1.NodeConditionType {
	a.strain.mu.Lock()
	defer a.strain.mu.Unlock()
	return a.strain.now
}

// relieve looks every ten seconds whether the node is short of something, and
// makes room when it is: by what nobody uses, then by one pod at a time.
func (a *Agent) relieve(ctx context.Context) error {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		a.lookAtFlows()
		evicted := a.relieveOnce(ctx)
		for _, m := range evicted {
			m.awaitEnd(ctx, goneWithin)
		}
		if len(evicted) > 0 {
			timer.Reset(lookAfter) // what one pod has freed may not be enough
			continue
		}
		timer.Reset(lookEvery)
	}
}

// findImages asks the engine where its images are; before anything else looks.
func (a *Agent) findImages(ctx context.Context) {
	info, err := a.cfg.Engine.ImageFsInfo(ctx, &rt.ImageFsInfoRequest{})
	if err == nil && len(info.GetImageFilesystems()) > 0 {
		a.strain.machine.Images = info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	}
}

// lookAtFlows tells of a table of connections that is nearly full: the kernel drops new
// connections then, which looks like a network that loses packets.
func (a *Agent) lookAtFlows() {
	if a.strain.flows == nil {
		return
	}
	if f, ok := a.strain.flows(); ok && a.strain.crowd.Judge(f) {
		message := fmt.Sprintf("the kernel tracks %d connections of %d at most, and then drops new ones: raise net.netfilter.nf_conntrack_max", f.Now, f.Max)
		a.cfg.Log.Warn(message)
		a.events.EventRef(a.registry.Reference(), corev1.EventTypeWarning, "ConntrackNearlyFull", message)
	}
}

// relieveOnce returns the pods that it has evicted.
func (a *Agent) relieveOnce(ctx context.Context) []*machine {
	at := time.Now()
	seen := a.observed(ctx)
	verdict := a.strain.watch.Judge(seen, time.Now())
	a.strain.mu.Lock()
	news := !slices.Equal(a.strain.now, verdict.Conditions)
	a.strain.now = verdict.Conditions
	a.strain.mu.Unlock()
	if news {
		a.registry.Kick()
	}
	if evicted := a.enforceLimits(ctx); len(evicted) > 0 {
		return evicted
	}
	if len(verdict.Due) == 0 {
		a.strain.helpless = ""
		return nil
	}
	due := verdict.Due[0]
	a.events.EventRef(a.registry.Reference(), corev1.EventTypeWarning, "EvictionThresholdMet", fmt.Sprintf("Attempting to reclaim %s", due.Signal.Resource()))
	if due.Signal.Disk() {
		a.discard(ctx)
		if again := a.observed(ctx); !a.strain.watch.Crossed(again) {
			return nil
		}
	}
	return a.evictFor(ctx, due, sight{seen[due.Signal], at})
}

// sight is what was seen of the node, and when.
type sight struct {
	pressure.Observation
	at time.Time
}

// observed adds what pods have left of the memory that is theirs.
func (a *Agent) observed(ctx context.Context) pressure.Observations {
	seen := a.strain.observe()
	total, reserved := seen[pressure.Memory].Capacity, a.cfg.Reserved.Memory().Value()
	if total == 0 || reserved == 0 {
		return seen
	}
	used, err := a.meter.Measure(ctx, a.placed(""), func(*corev1.Pod) bool { return false })
	if err != nil {
		return seen
	}
	left := total - reserved
	for _, u := range used {
		left -= u.Memory
	}
	seen[pressure.Allocatable] = pressure.Observation{Available: left, Capacity: total - reserved}
	return seen
}

// discard removes dead containers and unused images.
func (a *Agent) discard(ctx context.Context) {
	if err := a.removeDead(ctx); err != nil {
		a.cfg.Log.Warn("can't remove dead containers", "err", err)
	}
	if err := a.trash.Empty(ctx); err != nil {
		a.cfg.Log.Warn("can't remove unused images", "err", err)
	}
}

// removeDead removes the containers of pods that have ended, and of others all
// dead ones but the newest of a name, which their status tells of.
func (a *Agent) removeDead(ctx context.Context) error {
	list, err := a.cfg.Engine.ListContainers(ctx, &rt.ListContainersRequest{
		Filter: &rt.ContainerFilter{State: &rt.ContainerStateValue{State: rt.ContainerState_CONTAINER_EXITED}},
	})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	newest := map[string]uint32{}
	place := func(c *rt.Container) string {
		return c.GetLabels()[actual.LabelPodUID] + "/" + c.GetMetadata().GetName()
	}
	for _, c := range list.GetContainers() {
		newest[place(c)] = max(newest[place(c)], c.GetMetadata().GetAttempt())
	}
	active := map[string]bool{}
	for _, p := range a.placed("") {
		active[string(p.UID)] = true
	}
	for _, c := range list.GetContainers() {
		if active[c.GetLabels()[actual.LabelPodUID]] && c.GetMetadata().GetAttempt() == newest[place(c)] {
			continue
		}
		if _, err := a.cfg.Engine.RemoveContainer(ctx, &rt.RemoveContainerRequest{ContainerId: c.GetId()}); err != nil {
			return fmt.Errorf("remove container %q: %w", c.GetId(), err)
		}
		a.unlinkListed(c)
	}
	return nil
}

// enforceLimits evicts the pods that have passed a limit of local storage.
func (a *Agent) enforceLimits(ctx context.Context) []*machine {
	if !*a.cfg.Kubelet.LocalStorageCapacityIsolation {
		return nil
	}
	pods := slices.DeleteFunc(a.placed(""), func(p *corev1.Pod) bool { return !pressure.Limited(p) || admit.Critical(p) })
	if len(pods) == 0 {
		return nil
	}
	at := time.Now()
	used, err := a.meter.Measure(ctx, pods, func(*corev1.Pod) bool { return true })
	if err != nil {
		a.cfg.Log.Warn("can't measure pods", "err", err)
		return nil
	}
	var evicted []*machine
	dedicated := a.strain.machine.Dedicated()
	for _, p := range pods {
		limit, why := pressure.Exceeded(p, used[string(p.UID)], dedicated)
		if m := a.machine(p.UID); why != "" && m != nil {
			a.tally.Evicted(string(limit), at)
			m.finishOff(ending{reason: evictedReason, grace: hardGrace, verdict: status.Verdict{Reason: evictedReason, Message: why}})
			evicted = append(evicted, m)
		}
	}
	return evicted
}

const evictedReason = "Evicted"

// evictFor evicts one pod for the sake of a threshold.
func (a *Agent) evictFor(ctx context.Context, due pressure.Threshold, seen sight) []*machine {
	pods := slices.DeleteFunc(a.placed(""), admit.Critical)
	used, err := a.meter.Measure(ctx, pods, func(*corev1.Pod) bool { return due.Signal.Disk() })
	if err != nil {
		a.cfg.Log.Warn("can't measure pods", "err", err)
		used = map[string]usage.Pod{}
	}
	pressure.Rank(pods, used, due.Signal, pressure.Parts(due.Signal, a.strain.machine.Dedicated()))
	for _, p := range pods {
		m := a.machine(p.UID)
		if m == nil {
			continue
		}
		message, notes := pressure.Message(p, used[string(p.UID)], due, seen.Observation)
		m.finishOff(ending{
			reason: evictedReason, annotations: notes, grace: a.evictionGrace(p, due.Hard),
			verdict: status.Verdict{Reason: evictedReason, Message: message, Disruption: message},
		})
		a.tally.Evicted(string(due.Signal), seen.at)
		return []*machine{m}
	}
	if a.strain.helpless != due.Signal {
		a.strain.helpless = due.Signal
		a.cfg.Log.Warn("the node is short of something, and there is no pod to evict", "signal", due.Signal)
	}
	return nil
}

// evictionGrace is how long an evicted pod has to stop.
func (a *Agent) evictionGrace(pod *corev1.Pod, hard bool) time.Duration {
	most := time.Duration(a.cfg.Kubelet.EvictionMaxPodGracePeriod) * time.Second
	own := pod.Spec.TerminationGracePeriodSeconds
	switch {
	case hard:
		return hardGrace
	case most < 0 && own != nil:
		return time.Duration(*own) * time.Second
	case own != nil:
		return min(most, time.Duration(*own)*time.Second)
	}
	return max(most, 0)
}

// awaitEnd waits until nothing of the pod runs, but not for ever.
func (m *machine) awaitEnd(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-m.down:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// newTrash collects images.
func (a *Agent) newTrash() *garbage.Images {
	k := a.cfg.Kubelet
	return garbage.New(garbage.Config{
		Engine: a.cfg.Engine, High: int(*k.ImageGCHighThresholdPercent), Low: int(*k.ImageGCLowThresholdPercent),
		MinAge: k.ImageMinimumGCAge.Duration, MaxAge: k.ImageMaximumGCAge.Duration, Log: a.cfg.Log,
		Space: func(context.Context) (int64, int64, bool) {
			o, ok := a.strain.observe()[pressure.ImageFS]
			return o.Capacity, o.Available, ok
		},
		Keep: a.imagesWanted, Left: a.images.records.Prune, Removed: a.tally.ImageCollected,
		Warn: func(reason, message string) {
			a.events.EventRef(a.registry.Reference(), corev1.EventTypeWarning, reason, message)
		},
	})
}

// imagesWanted are the images of the pods that are here, whether they have been
// used yet or not.
func (a *Agent) imagesWanted(ctx context.Context) map[string]bool {
	wanted := map[string]bool{}
	add := func(name string) {
		if name == "" || wanted[name] {
			return
		}
		wanted[name] = true
		if img, ok, err := a.images.find(ctx, name); err == nil && ok {
			wanted[img.Ref] = true
		}
	}
	for _, p := range a.placed("") {
		for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for i := range list {
				add(list[i].Image)
			}
		}
		for _, v := range p.Spec.Volumes {
			if v.Image != nil {
				add(v.Image.Reference)
			}
		}
	}
	return wanted
}

// emptyDir is where an emptyDir of a pod is.
func (a *Agent) emptyDir(pod *corev1.Pod, name string) string {
	return a.volumes.Dir(string(pod.UID)) + "/volumes/kubernetes.io~empty-dir/" + name
}
