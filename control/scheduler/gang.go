package scheduler

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/target"
)

// gangScheduling is who refuses for a group's sake; upstream's plugin.
const gangScheduling = "GangScheduling"

// gangs are the pod groups of the cluster with their pods, those that have a node
// and those that have none. The goroutine that schedules owns them.
//
// A gang is placed in one step of the decisions: as many of its pods as can be are
// put on nodes in memory; if those, with the ones that have nodes already, are as
// many as the gang needs, all are bound, and if not, all are lifted again before
// anybody else is looked at. So a gang never holds room that it does not use, no
// two gangs wait for each other, and there is nothing to time out.
type gangs struct {
	groups  map[string]*schedulingv1beta1.PodGroup // by "namespace/name"
	members map[string]map[types.UID]*corev1.Pod
	// told is what was written last into a group's status, which may not be back yet.
	told map[types.UID]*metav1.Condition
}

func newGangs() *gangs {
	return &gangs{groups: map[string]*schedulingv1beta1.PodGroup{}, members: map[string]map[types.UID]*corev1.Pod{}, told: map[types.UID]*metav1.Condition{}}
}

// gangOf is the group that a pod names, "" when it names none.
func gangOf(pod *corev1.Pod) string {
	if g := pod.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		return pod.Namespace + "/" + *g.PodGroupName
	}
	return ""
}

// note remembers a pod of a group; it says whether it is new.
func (g *gangs) note(pod *corev1.Pod) bool {
	key := gangOf(pod)
	if key == "" {
		return false
	}
	if g.members[key] == nil {
		g.members[key] = map[types.UID]*corev1.Pod{}
	}
	_, known := g.members[key][pod.UID]
	g.members[key][pod.UID] = pod
	return !known
}

func (g *gangs) forget(pod *corev1.Pod) {
	key := gangOf(pod)
	if delete(g.members[key], pod.UID); len(g.members[key]) == 0 {
		delete(g.members, key)
	}
}

// least is how many pods a group needs at once; 0 when it is no gang.
func least(g *schedulingv1beta1.PodGroup) int {
	if g == nil || g.Spec.SchedulingPolicy.Gang == nil {
		return 0
	}
	return int(g.Spec.SchedulingPolicy.Gang.MinCount)
}

// gate is the part of gang scheduling that is a filter: it keeps pods back until
// their group is there, and is complete.
type gate struct{ *gangs }

// Name implements Filter.
func (gate) Name() string { return gangScheduling }

// Depends implements Filter.
func (gate) Depends() Dependence { return OnItself }

// For implements Filter.
func (gate) For(*corev1.Pod, View) Fit { return nil }

// Heeds implements Filter.
func (gate) Heeds() ChangeKind { return GroupChanged }

// Helps implements Filter.
func (gate) Helps(pod *corev1.Pod, c Change, _ View) bool {
	if c.Pod != nil {
		return gangOf(c.Pod) == gangOf(pod)
	}
	now, is := c.New.(*schedulingv1beta1.PodGroup)
	if !is || now.Namespace+"/"+now.Name != gangOf(pod) {
		return false
	}
	old, had := c.Old.(*schedulingv1beta1.PodGroup)
	return !had || least(now) < least(old)
}

// Shut implements Gate; upstream's words.
func (g gate) Shut(pod *corev1.Pod, _ View) string {
	key := gangOf(pod)
	if key == "" {
		return ""
	}
	group, known := g.groups[key]
	if !known {
		return fmt.Sprintf("waiting for pods's pod group %q to appear in scheduling queue", *pod.Spec.SchedulingGroup.PodGroupName)
	}
	if len(g.members[key]) < least(group) {
		return "waiting for minCount pods from a gang to appear in scheduling queue"
	}
	return ""
}

// groupChanged brings a group's new state into the view.
func (s *Scheduler) groupChanged(e informer.Event[*schedulingv1beta1.PodGroup]) {
	key := e.Object().Namespace + "/" + e.Object().Name
	if e.New == nil {
		delete(s.gangs.groups, key)
		delete(s.gangs.told, e.Old.UID)
		return
	}
	s.gangs.groups[key] = e.New
	s.changed(Change{Kind: GroupChanged, Old: some(e.Old), New: some(e.New)})
}

// tryout is one pod of a gang on trial.
type tryout struct {
	w    *waiting
	r    *rules
	o    *outcome
	held []Reservation
	// shut is why it is not looked at yet.
	by, shut string
}

// scheduleGang makes one attempt to place all of a group's pods that wait.
func (s *Scheduler) scheduleGang(ctx context.Context, w *waiting) {
	key := gangOf(w.pod)
	group := s.gangs.groups[key]
	t := trial{line: s.lineUp(key, w)}
	if err := s.unlike(group, t.line); err != nil {
		s.reject(ctx, group, t.line, err)
		return
	}
	t.count = s.musterOf(key, len(t.line))
	for i, one := range t.line {
		if t.count.lost() {
			t.untried = t.line[i:]
			break
		}
		placed := s.tryOut(one)
		if t.count.tried(placed); placed {
			t.placed = append(t.placed, one)
		} else {
			t.left = append(t.left, one)
		}
	}
	if t.count.scheduled < t.count.need || len(t.placed) == 0 {
		s.disband(ctx, group, &t)
		return
	}
	for _, one := range t.placed {
		s.commit(ctx, one.w, one.o, one.held)
	}
	for _, one := range t.left {
		s.sendBack(ctx, one)
	}
	s.tellGroup(ctx, group, metav1.Condition{Status: metav1.ConditionTrue, Reason: "Scheduled"})
}

// lineUp takes the gang's pods that wait out of the queue, in its order.
func (s *Scheduler) lineUp(key string, popped *waiting) []*tryout {
	var line []*tryout
	for uid := range s.gangs.members[key] {
		w, waits := s.queue.pods[uid]
		if !waits || w.gated || w.binding {
			continue
		}
		if w != popped {
			s.queue.leave(w)
			w.attempt++
		}
		if w.key == "" {
			w.key = s.cluster.classKey(w.pod)
		}
		line = append(line, &tryout{w: w, r: s.profiles[w.pod.Spec.SchedulerName]})
	}
	slices.SortFunc(line, func(a, b *tryout) int {
		if s.queue.active.less(a.w, b.w) {
			return -1
		}
		return 1
	})
	return line
}

// tryOut puts one pod on a node, in memory.
func (s *Scheduler) tryOut(t *tryout) bool {
	if t.by, t.shut = t.r.shut(t.w.pod, s.cluster); t.shut != "" {
		return false
	}
	t.o = t.r.decide(t.w.pod, t.w.key, s.cluster)
	s.metrics.decided(t.w.pod, t.o)
	t.o.Attempt = t.w.attempt
	if t.o.Node == "" {
		return false
	}
	held, err := s.reserve(t.r, t.w, t.o)
	if err != nil {
		t.o.Node, t.o.failed = "", err
		return false
	}
	t.held = held
	s.cluster.place(t.w.pod, t.o.Node)
	return true
}

// sendBack lets a pod wait that found no place. Nobody is evicted for one of a group.
func (s *Scheduler) sendBack(ctx context.Context, t *tryout) {
	if t.shut != "" {
		s.park(t.r, t.w, t.by, t.shut)
		return
	}
	s.conclude(ctx, t.r, t.w, t.o, "")
}

// disband takes everybody back: too few found a place. The pods that did wait for
// those that did not.
func (s *Scheduler) disband(ctx context.Context, group *schedulingv1beta1.PodGroup, t *trial) {
	var text string
	if t.count.scheduled < t.count.need { // else enough have nodes, and these do not fit
		text = t.count.String()
	}
	untried := text
	plan, how := s.planGang(group, t)
	for _, one := range slices.Backward(t.placed) {
		giveBack(one.held)
		s.cluster.lift(one.w.pod.UID)
	}
	text = join(text, "pod group preemption: "+how)
	if plan != nil {
		s.makeRoomForGang(ctx, plan)
	}
	for _, one := range t.left {
		if one.o != nil {
			one.o.also = []string{gangScheduling}
		}
		s.sendBack(ctx, one)
	}
	told := text
	if plan == nil {
		told = join("pod group is unschedulable", text)
	}
	for _, one := range t.placed {
		s.waitForGroup(ctx, one, told)
	}
	for _, one := range t.untried {
		s.waitForGroup(ctx, one, untried)
	}
	s.tellGroup(ctx, group, metav1.Condition{Status: metav1.ConditionFalse, Reason: schedulingv1beta1.PodGroupReasonUnschedulable, Message: text})
}

// waitForGroup sends a pod back that others of its group keep from its place.
func (s *Scheduler) waitForGroup(ctx context.Context, t *tryout, text string) {
	if t.o == nil {
		t.o = &outcome{Decision: Decision{
			Namespace: t.w.pod.Namespace, Name: t.w.pod.Name, UID: string(t.w.pod.UID), At: time.Now(), Attempt: t.w.attempt, Nodes: len(s.cluster.Nodes()),
		}}
	}
	t.o.Node, t.o.best, t.o.verbatim = "", nil, text
	t.o.Refusals = []explain.Refusal{{Filter: gangScheduling, Reason: text, Nodes: len(s.cluster.Nodes()), Final: true}}
	s.conclude(ctx, t.r, t.w, t.o, "")
}

// tellGroup writes into the group's status how it went. Once a gang has been
// placed, that stays so.
func (s *Scheduler) tellGroup(ctx context.Context, group *schedulingv1beta1.PodGroup, c metav1.Condition) {
	c.Type, c.ObservedGeneration = schedulingv1beta1.PodGroupInitiallyScheduled, group.Generation
	before := s.gangs.told[group.UID]
	if before == nil {
		before = meta.FindStatusCondition(group.Status.Conditions, c.Type)
	}
	if before != nil && (before.Status == metav1.ConditionTrue || before.Status == c.Status && before.Message == c.Message) {
		return
	}
	c.LastTransitionTime = metav1.NewTime(time.Now())
	if before != nil && before.Status == c.Status {
		c.LastTransitionTime = before.LastTransitionTime
	}
	s.gangs.told[group.UID] = &c
	s.inTurn(group.UID, func() {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		raw, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": group.UID}, "status": map[string]any{"conditions": []metav1.Condition{c}},
		})
		if err == nil {
			at := target.Of(client.PodGroups.GroupVersionResource, group.Namespace).Object(group.Name).Sub("status")
			_, err = client.PodGroups.Patch(ctx, s.cfg.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: raw})
		}
		if err != nil {
			s.mail.post(func() { delete(s.gangs.told, group.UID) })
		}
		if err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("pod group's status not written", "group", group.Namespace+"/"+group.Name, "error", err)
		}
	})
}

// companions are the pods that are evicted with one: those of its group, if that
// wants to be disrupted as a whole.
func (g *gangs) companions(pod *corev1.Pod) []*corev1.Pod {
	key := gangOf(pod)
	group := g.groups[key]
	if key == "" || group == nil || group.Spec.DisruptionMode == nil || group.Spec.DisruptionMode.All == nil {
		return []*corev1.Pod{pod}
	}
	return slices.SortedFunc(maps.Values(g.members[key]), func(a, b *corev1.Pod) int { return cmp.Compare(a.UID, b.UID) })
}
