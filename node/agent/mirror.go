package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/static"
	"github.com/sampan-dev/sampan/node/agent/status"
)

// statics are the pods that the manifests of this node ask for, and the API's
// objects that show them.
type statics struct {
	mu      sync.Mutex
	pods    map[types.UID]*corev1.Pod
	mirrors map[types.NamespacedName]*corev1.Pod
	// of are the pods by where they come from, one of so many sources.
	of      map[string]map[types.UID]*corev1.Pod
	sources int
	// read closes when the manifests have been read once.
	read chan struct{}
}

func newStatics() *statics {
	return &statics{pods: map[types.UID]*corev1.Pod{}, of: map[string]map[types.UID]*corev1.Pod{}, mirrors: map[types.NamespacedName]*corev1.Pod{}, read: make(chan struct{})}
}

// Where manifests come from.
const filesSource, urlSource = "static pods of files", "static pods of a URL"

// runStatic follows the manifests until ctx ends: those of files, and those of a URL.
func (a *Agent) runStatic(ctx context.Context) error {
	k, begun := a.cfg.Kubelet, 0
	follow := func(what string, read func(ctx context.Context, changed func([]*corev1.Pod)) error) {
		begun++
		a.spawn(func() {
			a.run(ctx, what, func(ctx context.Context) error {
				return read(ctx, func(pods []*corev1.Pod) { a.heedStatic(what, pods) })
			})
		})
	}
	a.statics.mu.Lock()
	defer a.statics.mu.Unlock() // nobody is heard before all are counted
	if k.StaticPodPath != "" {
		follow(filesSource, func(ctx context.Context, changed func([]*corev1.Pod)) error {
			return static.Run(ctx, static.Config{
				Path: k.StaticPodPath, NodeName: a.cfg.NodeName, Every: k.FileCheckFrequency.Duration, Prepare: a.cfg.PreparePod,
				Poll: a.cfg.poll, Log: a.cfg.Log,
			}, changed)
		})
	}
	if k.StaticPodURL != "" {
		follow(urlSource, func(ctx context.Context, changed func([]*corev1.Pod)) error {
			return static.Fetch(ctx, static.FetchConfig{
				URL: k.StaticPodURL, Header: k.StaticPodURLHeader, NodeName: a.cfg.NodeName, Every: k.HTTPCheckFrequency.Duration,
				Prepare: a.cfg.PreparePod, Log: a.cfg.Log,
			}, changed)
		})
	}
	if a.statics.sources = begun; begun == 0 {
		close(a.statics.read)
	}
	return nil
}

// heedStatic compares the manifests of a source with those before.
func (a *Agent) heedStatic(from string, pods []*corev1.Pod) {
	s := a.statics
	s.mu.Lock()
	old := s.of[from]
	s.of[from] = map[types.UID]*corev1.Pod{}
	for _, p := range pods {
		s.of[from][p.UID] = p
	}
	s.pods = map[types.UID]*corev1.Pod{}
	for _, list := range s.of {
		maps.Copy(s.pods, list)
	}
	first := old == nil && len(s.of) == s.sources
	now := maps.Clone(s.of[from])
	s.mu.Unlock()
	for uid, p := range old {
		if now[uid] == nil {
			a.inbox.put(p, nil)
		}
	}
	for uid, p := range now {
		if old[uid] == nil {
			a.inbox.put(nil, a.cfg.without(p))
		}
	}
	if first {
		close(s.read)
	}
}

// heedPod takes what the API says about a pod of this node to whoever it is for.
func (a *Agent) heedPod(e informer.Event[*corev1.Pod]) {
	seen := e.New
	if seen == nil {
		seen = e.Old
	}
	if !static.IsMirror(seen) {
		a.inbox.put(static.FromAPI(e.Old), static.FromAPI(a.cfg.without(e.New)))
		return
	}
	s, key := a.statics, types.NamespacedName{Namespace: seen.Namespace, Name: seen.Name}
	s.mu.Lock()
	have := s.mirrors[key]
	switch {
	case e.New == nil:
		delete(s.mirrors, key)
	case have == nil || have.UID != e.New.UID || !older(e.New.ResourceVersion, have.ResourceVersion):
		s.mirrors[key] = e.New
	}
	s.mu.Unlock()
	if m := a.named(key.Namespace, key.Name); m != nil {
		m.wake()
		return
	}
	a.inbox.ring() // a mirror of nothing is looked at by the dispatcher
}

// named is the owner of the pod of a name: of one that ends and one that comes
// there is never more than the former.
func (a *Agent) named(namespace, name string) *machine {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.machines {
		if m.namespace == namespace && m.name == name {
			return m
		}
	}
	return nil
}

// mirrorOf is the API's object that shows a static pod, nil for none.
func (a *Agent) mirrorOf(namespace, name string) *corev1.Pod {
	a.statics.mu.Lock()
	defer a.statics.mu.Unlock()
	return a.statics.mirrors[types.NamespacedName{Namespace: namespace, Name: name}]
}

// sawMirror notes a mirror's newest state.
func (a *Agent) sawMirror(mirror *corev1.Pod) {
	key := types.NamespacedName{Namespace: mirror.Namespace, Name: mirror.Name}
	a.statics.mu.Lock()
	defer a.statics.mu.Unlock()
	if have := a.statics.mirrors[key]; have != nil && have.UID == mirror.UID && !older(mirror.ResourceVersion, have.ResourceVersion) {
		a.statics.mirrors[key] = mirror
	}
}

// unmirror deletes objects that show what is no more: those whose manifest is
// gone and whose pod has ended.
func (a *Agent) unmirror(ctx context.Context) {
	select {
	case <-a.statics.read:
	default:
		return
	}
	a.statics.mu.Lock()
	wanted := map[types.NamespacedName]bool{}
	for _, p := range a.statics.pods {
		wanted[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = true
	}
	var orphans []*corev1.Pod
	for key, mirror := range a.statics.mirrors {
		if !wanted[key] {
			orphans = append(orphans, mirror)
		}
	}
	a.statics.mu.Unlock()
	for _, mirror := range orphans {
		if a.named(mirror.Namespace, mirror.Name) != nil {
			continue
		}
		a.spawn(func() {
			if err := a.deletePod(ctx, mirror); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				a.cfg.Log.Warn("can't delete a mirror pod", "pod", mirror.Name, "namespace", mirror.Namespace, "err", err)
				pause(ctx, sendRetry.Max)
				a.inbox.ring()
			}
		})
	}
}

// reflect keeps the API's picture of a static pod: it is made when there is
// none, and replaced when it shows another manifest or somebody deletes it.
func (m *machine) reflect(ctx context.Context, again *alarm) {
	if !m.static || m.gone {
		return
	}
	m.mirror = m.a.mirrorOf(m.namespace, m.name)
	if m.mirror != nil && m.mirror.DeletionTimestamp == nil && m.mirror.Annotations[static.AnnotationMirror] == string(m.uid) {
		m.inherit()
		return
	}
	old := m.mirror
	m.mirror = nil // what shows something else gets no status of this pod
	if m.ops[opMirror] != nil {
		return
	}
	node, registered := m.a.nodes.Get("", m.a.cfg.NodeName)
	if !registered {
		return // it is made as soon as there is a node to own it
	}
	if time.Now().Before(m.holdMirror) {
		again.by(m.holdMirror)
		return
	}
	pod := m.pod
	m.launch(ctx, opMirror, plan.Step{}, func(ctx context.Context) func(*machine) {
		err := m.a.remirror(ctx, pod, old, node)
		return func(m *machine) {
			// What was made comes by the watch; until then nothing more is made.
			m.mirrorFail++
			m.holdMirror = time.Now().Add(sendRetry.After(m.mirrorFail))
			if err != nil {
				m.log.Warn("can't make the mirror pod", "err", err)
			}
		}
	})
}

// inherit takes over, once, what only the API remembers of the pod.
func (m *machine) inherit() {
	if m.mirrorFail = 0; m.inherited {
		return
	}
	m.inherited = true
	m.holdMirror = time.Time{}
	if start := m.mirror.Status.StartTime; start != nil && (m.status.StartTime == nil || start.Before(m.status.StartTime)) {
		m.status.StartTime = start
	}
	m.recognize(&m.mirror.Status, func(c *actual.Container, st *corev1.ContainerStatus) {
		m.probes.Assume(c.ID, st.Started != nil && *st.Started, st.Ready)
	})
	m.wake() // what had started is asked whether it is ready and alive
}

// goOn counts on where the pod's owner before ended: a static pod that comes back is the
// same by its UID, and what runs then has been restarted.
func (m *machine) goOn(before *machine) {
	last := before.withStatus().Status
	for _, lists := range []struct{ from, to *[]corev1.ContainerStatus }{
		{&last.InitContainerStatuses, &m.status.InitContainerStatuses}, {&last.ContainerStatuses, &m.status.ContainerStatuses},
	} {
		for i := range *lists.from {
			st := &(*lists.from)[i]
			*lists.to = append(*lists.to, corev1.ContainerStatus{
				Name: st.Name, RestartCount: status.NextAttempt(st), State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}},
			})
		}
	}
	m.seenStatus = m.status
}

// remirror replaces old, which may be nil.
func (a *Agent) remirror(ctx context.Context, pod, old *corev1.Pod, node *corev1.Node) error {
	if old != nil {
		if err := a.deletePod(ctx, old); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	mirror, controller := pod.DeepCopy(), true
	mirror.UID, mirror.Annotations[static.AnnotationMirror] = "", string(pod.UID)
	mirror.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &controller}}
	_, err := client.Pods.Create(ctx, a.cfg.Transport, mirror)
	if apierrors.IsAlreadyExists(err) {
		return nil // the watch will tell what it is
	}
	return err
}

// shownBy is the API's object that a pod's status is written to: the pod itself,
// or the mirror of a static one; nil for none.
func (m *machine) shownBy() *corev1.Pod {
	if m.static {
		return m.mirror
	}
	return m.pod
}

// judged is the pod as its status is computed from: what the API's clients may
// have added to a mirror is the static pod's too. The mirror's generation is not: a
// manifest has none, and so its pod never observes one, as upstream's.
func (m *machine) judged() *corev1.Pod {
	if !m.static || m.mirror == nil {
		return m.allotted()
	}
	p := *m.pod
	p.Status.Conditions = m.mirror.Status.Conditions
	return &p
}
