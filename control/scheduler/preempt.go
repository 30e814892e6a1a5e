package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// On how many nodes a preemption is tried out; upstream's defaults.
const (
	minCandidatesPercent  = 10
	minCandidatesAbsolute = 100
)

// preempting are the settings of DefaultPreemption.
type preempting struct {
	off               bool
	percent, absolute int32
}

// candidates is how many nodes that can be freed are enough.
func (p preempting) candidates(nodes int) int {
	percent, absolute := int(p.percent), int(p.absolute)
	if percent == 0 && absolute == 0 {
		percent, absolute = minCandidatesPercent, minCandidatesAbsolute
	}
	return min(nodes, max(nodes*percent/100, absolute))
}

// preemption is a way to make room: the pods to evict from a node.
type preemption struct {
	node    string
	victims []*corev1.Pod
	// group is whom it is for, when that is a group of pods.
	group types.UID
	// violations counts victims whose disruption budget does not allow it.
	violations int
}

// preempt looks for the node where the least must be evicted so that pod fits.
// The text tells, as upstream's does, how it went.
func (r *rules) preempt(pod *corev1.Pod, key string, c *cluster, o *outcome, budgets []*policyv1.PodDisruptionBudget) (*preemption, string) {
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever {
		return nil, "preemption: not eligible due to preemptionPolicy=Never."
	}
	if o.final {
		return nil, noRoom(o.Nodes, map[string]int{})
	}
	k := r.class(pod, key, c)
	own := r.prepareOwn(pod, k, c)
	nodes := r.inQuestion(k, c)
	var helpful []*Node
	for _, n := range nodes {
		if at := k.check(n, own); !k.verdicts[at].why.Final {
			helpful = append(helpful, n)
		}
	}
	var found []*preemption
	enough, begin, harmless := r.preempting.candidates(len(helpful)), 0, false
	if len(helpful) > 0 {
		begin = r.pick.IntN(len(helpful))
	}
	refused := map[string]int{}
	for i := range helpful {
		p, why := r.freeing(pod, helpful[(begin+i)%len(helpful)], k, c, budgets)
		if p == nil {
			for _, text := range append(why.More, why.Text) {
				refused[text]++
			}
			continue
		}
		harmless = harmless || p.violations == 0
		if found = append(found, p); len(found) >= enough && harmless {
			break
		}
	}
	if rest := len(c.Nodes()) - len(helpful); rest > 0 {
		refused[notHelpful] += rest
	}
	if len(found) == 0 {
		return nil, noRoom(len(c.Nodes()), refused)
	}
	if found = r.consultPreemption(pod, found, c); len(found) == 0 {
		return nil, "preemption: no candidate node for preemption"
	}
	best := slices.MinFunc(found, milder)
	return best, fmt.Sprintf("preemption: found a potential placement for pod on node %s, preempting %d victims", best.node, len(best.victims))
}

// inQuestion are the nodes that a class may be on.
func (r *rules) inQuestion(k *class, c *cluster) []*Node {
	if !k.narrowed {
		return c.Nodes()
	}
	var nodes []*Node
	for _, name := range k.only {
		if n, ok := c.nodes[name]; ok && n.Node != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// What is said of nodes where nobody can be evicted to make room; upstream's words.
const (
	notHelpful = "Preemption is not helpful for scheduling"
	noVictims  = "No preemption victims found for incoming pod"
)

// noRoom is upstream's wording of a preemption that found nothing: refused counts the
// nodes by what is in the way, those where evicting helps nobody are to be counted in.
func noRoom(nodes int, refused map[string]int) string {
	if len(refused) == 0 {
		refused[notHelpful] = nodes
	}
	var parts []string
	for text, count := range refused {
		parts = append(parts, fmt.Sprintf("%d %s", count, text))
	}
	slices.Sort(parts)
	return fmt.Sprintf("preemption: 0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}

// victims takes all lower pods off the node, and, if the pod then fits, puts back
// as many as can stay: those whose budget forbids eviction first, then the most
// important. In the end all are there again. Without victims it says why.
func (r *rules) victims(pod *corev1.Pod, n *Node, k *class, c *cluster, budgets []*policyv1.PodDisruptionBudget) (*preemption, Reason) {
	var lower []*corev1.Pod
	for _, p := range n.Pods {
		if priority(p.Pod) < priority(pod) {
			lower = append(lower, p.Pod)
		}
	}
	if len(lower) == 0 {
		return nil, Reason{Text: noVictims}
	}
	slices.SortFunc(lower, moreImportant)
	taken, asItWas := make([]*Pod, 0, len(lower)), k.remember(n, c)
	for _, p := range lower {
		taken = append(taken, c.pods[p.UID])
		c.lift(p.UID)
	}
	defer func() {
		for _, p := range taken {
			if _, there := c.pods[p.UID]; !there {
				c.put(p, c.node(n.host))
			}
		}
		asItWas()
	}()
	refusal := func() int32 {
		if at := k.check(n, r.own); at != 0 {
			return at
		}
		return r.withNominated(pod, n, k, c)
	}
	if at := refusal(); at != 0 {
		return nil, k.verdicts[at].why
	}
	protected, free := byBudget(lower, budgets)
	out := &preemption{node: n.host}
	reprieve := func(pods []*corev1.Pod) (evicted int) {
		for _, p := range pods {
			c.put(taken[slices.Index(lower, p)], n)
			if refusal() == 0 {
				continue
			}
			c.lift(p.UID)
			out.victims = append(out.victims, p)
			evicted++
		}
		return evicted
	}
	out.violations = reprieve(protected)
	reprieve(free)
	if len(out.victims) == 0 {
		return nil, Reason{Text: fmt.Sprintf("expected at least one victim pod on node %q", n.host)}
	}
	return out, OK
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
			if b.Namespace != p.Namespace || len(p.Labels) == 0 {
				continue
			}
			selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil || selector.Empty() || !selector.Matches(labels.Set(p.Labels)) {
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
	return cmp.Or(cmp.Compare(priority(b), priority(a)), started(a).Compare(started(b)), cmp.Compare(a.UID, b.UID))
}

// started is when a pod began to run; one that has not is newer than all others.
func started(p *corev1.Pod) time.Time {
	if p.Status.StartTime == nil {
		return notYet
	}
	return p.Status.StartTime.Time
}

// notYet is after everything that has begun.
var notYet = time.Unix(1<<40, 0)

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
