package scheduler

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
)

// maxGangVictims bounds the pods that are lifted to see whether a gang fits: what is
// gained by looking further is not worth the time of everybody else.
const maxGangVictims = 2000

// gangPlan is how to make room for a gang: whom to evict, and who goes where then.
type gangPlan struct {
	group   types.UID
	victims []*corev1.Pod
	moves   map[*waiting]string
}

// importance of a gang is its group's, or that of its pods.
func importance(group *schedulingv1beta1.PodGroup, pod *corev1.Pod) int32 {
	if group.Spec.Priority != nil {
		return *group.Spec.Priority
	}
	return priority(pod)
}

// noGangVictims: there is nobody less important; upstream's words.
const noGangVictims = "No preemption victims found for incoming preemptor"

// planGang finds out whether a gang would fit if less important pods went, and lets
// all stay that can. Some of the gang are on trial on nodes already; they stay
// there. In the end the cluster is as it was. The text says how it went.
func (s *Scheduler) planGang(group *schedulingv1beta1.PodGroup, t *trial) (*gangPlan, string) {
	for _, one := range t.line {
		if one.r.preempting.off || one.w.pod.Spec.PreemptionPolicy != nil && *one.w.pod.Spec.PreemptionPolicy == corev1.PreemptNever {
			return nil, "not eligible due to preemptionPolicy=Never."
		}
	}
	for _, one := range t.line {
		if s.leaving(one.r, one.w) {
			return nil, "ongoing preemption on nominated nodes"
		}
	}
	rank := importance(group, t.line[0].w.pod)
	lifted := s.liftBelow(rank, gangOf(t.line[0].w.pod))
	if len(lifted) == 0 {
		return nil, noGangVictims
	}
	plan, on, count := s.replay(t)
	gone := s.reprieve(lifted, append(slices.Clone(t.placed), on...), count.scheduled >= count.need)
	for _, one := range on {
		s.cluster.lift(one.w.pod.UID)
	}
	for _, p := range gone {
		s.cluster.put(p, s.cluster.node(p.node.host))
	}
	switch {
	case count.scheduled < count.need:
		return nil, count.String()
	case len(gone) == 0:
		return nil, noGangVictims
	}
	plan.group, plan.victims = group.UID, s.withCompanions(gone, rank)
	return plan, fmt.Sprintf("found a placement for podgroup, preempting %d victims", len(plan.victims))
}

// replay puts those on nodes who found none before; on are they.
func (s *Scheduler) replay(t *trial) (plan *gangPlan, on []*tryout, count muster) {
	plan = &gangPlan{moves: map[*waiting]string{}}
	for _, one := range t.placed {
		plan.moves[one.w] = one.o.Node
	}
	// Those of the gang that are on trial stand on nodes and are counted as such.
	count = s.musterOf(gangOf(t.line[0].w.pod), len(t.line)-len(t.placed))
	for _, one := range t.line {
		if _, stands := plan.moves[one.w]; stands {
			continue
		}
		if count.lost() {
			break
		}
		placed := false
		if one.shut == "" && (one.o == nil || one.o.failed == nil) {
			if o := one.r.decide(one.w.pod, one.w.key, s.cluster); o.Node != "" {
				s.cluster.place(one.w.pod, o.Node)
				plan.moves[one.w], placed = o.Node, true
				on = append(on, one)
			}
		}
		count.tried(placed)
	}
	return plan, on, count
}

// liftBelow takes the less important pods off their nodes, the least important
// first, but for those of the gang itself.
func (s *Scheduler) liftBelow(rank int32, gang string) []*Pod {
	var lower []*Pod
	for _, p := range s.cluster.pods {
		if priority(p.Pod) < rank && gangOf(p.Pod) != gang {
			lower = append(lower, p)
		}
	}
	slices.SortFunc(lower, func(a, b *Pod) int { return moreImportant(b.Pod, a.Pod) })
	if len(lower) > maxGangVictims {
		lower = lower[:maxGangVictims]
	}
	for _, p := range lower {
		s.cluster.lift(p.UID)
	}
	return lower
}

// reprieve puts everybody back who can stay, those first whose disruption budget
// forbids eviction, then the most important; it returns the others. Unless there is
// room for enough of the gang, all can.
func (s *Scheduler) reprieve(lifted []*Pod, gang []*tryout, enough bool) (gone []*Pod) {
	if !enough {
		return lifted
	}
	byUID := map[types.UID]*Pod{}
	var pods []*corev1.Pod
	for _, p := range slices.Backward(lifted) {
		byUID[p.UID] = p
		pods = append(pods, p.Pod)
	}
	protected, free := byBudget(pods, s.budgets.List())
	for _, pod := range append(protected, free...) {
		p := byUID[pod.UID]
		n := s.cluster.node(p.node.host)
		s.cluster.put(p, n)
		if !s.standing(gang, n) {
			s.cluster.lift(p.UID)
			gone = append(gone, p)
		}
	}
	return gone
}

// standing says whether the gang's pods on a node could still be put there.
func (s *Scheduler) standing(gang []*tryout, n *Node) bool {
	for _, t := range gang {
		p, on := n.Pods[t.w.pod.UID]
		if !on {
			continue
		}
		s.cluster.lift(p.UID)
		k := t.r.class(t.w.pod, t.w.key, s.cluster)
		fits := k.check(n, t.r.prepareOwn(t.w.pod, k, s.cluster)) == 0
		s.cluster.put(p, n)
		if !fits {
			return false
		}
	}
	return true
}

// withCompanions adds the pods that go with the victims, if they may.
func (s *Scheduler) withCompanions(gone []*Pod, rank int32) (victims []*corev1.Pod) {
	seen := map[types.UID]bool{}
	for _, p := range gone {
		for _, pod := range s.gangs.companions(p.Pod) {
			if _, on := s.cluster.pods[pod.UID]; on && !seen[pod.UID] && priority(pod) < rank {
				seen[pod.UID] = true
				victims = append(victims, pod)
			}
		}
	}
	return victims
}

// makeRoomForGang evicts, and keeps the room for the gang's pods.
func (s *Scheduler) makeRoomForGang(ctx context.Context, plan *gangPlan) {
	var one *corev1.Pod
	for w, node := range plan.moves {
		s.outrank(ctx, w.pod, node)
		s.nominated(w.pod, node)
		w.nominee = node
		one = w.pod
	}
	byNode := map[string]*preemption{}
	for _, v := range plan.victims {
		node := s.cluster.pods[v.UID].node.host
		if byNode[node] == nil {
			byNode[node] = &preemption{node: "cluster", group: plan.group} // what upstream calls all nodes
		}
		byNode[node].victims = append(byNode[node].victims, v)
	}
	for _, p := range byNode {
		s.work(func() {
			if !s.evict(ctx, one, p) {
				s.mail.post(func() {
					for w := range plan.moves {
						s.retry(w)
					}
				})
			}
		})
	}
}
