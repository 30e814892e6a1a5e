package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// maxCandidates bounds the nodes on which a preemption is tried out.
const maxCandidates = 100

// preemption is a way to make room: the pods to evict from a node.
type preemption struct {
	node    string
	victims []*corev1.Pod
	// violations counts victims whose disruption budget does not allow it.
	violations int
}

// preempt looks for the node where the least must be evicted so that pod fits.
// The text tells, as upstream's does, how it went.
func (r *rules) preempt(pod *corev1.Pod, c *cluster, d *Decision, budgets []*policyv1.PodDisruptionBudget) (*preemption, string) {
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever {
		return nil, "preemption: not eligible due to preemptionPolicy=Never."
	}
	var found []*preemption
	tried, hopeless := 0, 0
	fits := r.prepare(pod, c)
	for _, n := range c.Nodes() {
		if _, why := fits.check(n); why.Final {
			hopeless++
			continue
		}
		if tried++; tried > maxCandidates {
			break
		}
		if p := r.victims(pod, n, c, budgets); p != nil {
			found = append(found, p)
		}
	}
	if len(found) > 0 {
		return slices.MinFunc(found, milder), ""
	}
	return nil, noVictims(d.Nodes, hopeless)
}

// noVictims is upstream's wording of a preemption that found nothing.
func noVictims(nodes, hopeless int) string {
	text := fmt.Sprintf("preemption: 0/%d nodes are available:", nodes)
	if rest := nodes - hopeless; rest > 0 {
		text += fmt.Sprintf(" %d No preemption victims found for incoming pod", rest)
		if hopeless > 0 {
			text += ","
		}
	}
	if hopeless > 0 {
		text += fmt.Sprintf(" %d Preemption is not helpful for scheduling", hopeless)
	}
	return text + "."
}

// victims takes all lower pods off a copy of the node, and, if the pod then
// fits, puts back as many as can stay: those whose budget forbids eviction
// first, then the most important.
func (r *rules) victims(pod *corev1.Pod, n *Node, c *cluster, budgets []*policyv1.PodDisruptionBudget) *preemption {
	then := n.clone()
	var lower []*corev1.Pod
	for _, p := range n.Pods {
		if priority(p.Pod) < priority(pod) {
			lower = append(lower, p.Pod)
			then.remove(p.UID)
		}
	}
	view := c.suppose(then)
	fits := func() bool {
		_, why := r.prepare(pod, view).check(then)
		return !why.Refuses()
	}
	if len(lower) == 0 || !fits() {
		return nil
	}
	protected, free := byBudget(lower, budgets)
	out := &preemption{node: n.Name}
	reprieve := func(pods []*corev1.Pod) (evicted int) {
		slices.SortFunc(pods, moreImportant)
		for _, p := range pods {
			then.add(p)
			if fits() {
				continue
			}
			then.remove(p.UID)
			out.victims = append(out.victims, p)
			evicted++
		}
		return evicted
	}
	out.violations = reprieve(protected)
	reprieve(free)
	if len(out.victims) == 0 {
		return nil
	}
	return out
}

// byBudget parts the pods whose eviction would break a disruption budget, taken
// all together, from the others.
func byBudget(pods []*corev1.Pod, budgets []*policyv1.PodDisruptionBudget) (protected, free []*corev1.Pod) {
	left := make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		broken := false
		for i, b := range budgets {
			selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil || b.Namespace != p.Namespace || selector.Empty() || !selector.Matches(labels.Set(p.Labels)) {
				continue
			}
			if _, done := b.Status.DisruptedPods[p.Name]; done {
				continue
			}
			left[i]--
			broken = broken || left[i] < 0
		}
		if broken {
			protected = append(protected, p)
		} else {
			free = append(free, p)
		}
	}
	return protected, free
}

// moreImportant orders pods by priority, then by how long they have been running.
func moreImportant(a, b *corev1.Pod) int {
	if c := cmp.Compare(priority(b), priority(a)); c != 0 {
		return c
	}
	return started(a).Compare(started(b))
}

func started(p *corev1.Pod) time.Time {
	if p.Status.StartTime == nil {
		return p.CreationTimestamp.Time
	}
	return p.Status.StartTime.Time
}

// milder orders preemptions: fewest broken budgets, least important highest
// victim, least sum of priorities, fewest victims, latest start of the most
// important victim; upstream's order.
func milder(a, b *preemption) int {
	return cmp.Or(
		cmp.Compare(a.violations, b.violations),
		cmp.Compare(a.highest(), b.highest()),
		cmp.Compare(a.sum(), b.sum()),
		cmp.Compare(len(a.victims), len(b.victims)),
		b.earliest().Compare(a.earliest()),
		cmp.Compare(a.node, b.node),
	)
}

func (p *preemption) highest() int32 {
	return priority(slices.MinFunc(p.victims, moreImportant))
}

func (p *preemption) sum() (total int64) {
	for _, v := range p.victims {
		total += int64(priority(v)) + 1<<31
	}
	return total
}

func (p *preemption) earliest() time.Time {
	return started(slices.MinFunc(p.victims, moreImportant))
}
