package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/scheduler/device"
)

// Reason says in words why a pod cannot be on a node. The zero value means that
// it can.
type Reason struct {
	// Text reads after "2 node(s)": upstream's wording, which people search for.
	Text string
	// More are further reasons of the same filter, told beside the first.
	More []string
	// Final: removing other pods from the node would not help.
	Final bool
	// Failed: nothing is wrong with the node, the question could not be answered;
	// the attempt ends here, and the pod is tried again after its back-off.
	Failed bool
}

// OK is the reason for no refusal.
var OK Reason

// Refuses says whether r is a refusal.
func (r Reason) Refuses() bool { return r.Text != "" }

// Dependence says what an answer about a node is made of, beside the pod's own
// definition: it tells how long the answer may be kept for equal pods.
type Dependence int

// The dependences.
const (
	// OnNode: on the node object alone.
	OnNode Dependence = iota
	// OnPods: on the node object and the pods that are on it.
	OnPods
	// OnCluster: on other nodes too, by what View.Tally and View.Held count; For
	// is asked once for equal pods, and its answer looks at the counts anew.
	OnCluster
	// OnItself: on objects that this very pod names, such as its claims; For is
	// asked at every attempt.
	OnItself
)

// Fit answers for one pod whether it can be on a node.
type Fit func(n *Node) Reason

// Filter is a rule that a node must pass. Filters are asked one after the other,
// cheap ones first, and the first refusal counts.
type Filter interface {
	// Name is upstream's plugin name.
	Name() string
	// Depends says how long an answer holds.
	Depends() Dependence
	// For looks at a pod once, before it is held against nodes. A nil Fit means
	// that the rule has nothing to say about this pod.
	For(pod *corev1.Pod, v View) Fit
	// Heeds are the kinds of change that Helps may say yes to.
	Heeds() ChangeKind
	// Helps says whether a change may let in a pod that this filter refused; v is
	// the cluster after it.
	Helps(pod *corev1.Pod, c Change, v View) bool
}

// Narrower is a Filter that may know at once which nodes are in question.
type Narrower interface {
	// Only names them; narrowed is false when all are.
	Only(pod *corev1.Pod) (names []string, narrowed bool)
}

// QuietFilter is a Filter whose answer depends on the cluster, but which may know
// that it has nothing against any node just now.
type QuietFilter interface {
	// ForQuiet is For; quiet, asked once at each attempt, says that Fit would refuse
	// no node.
	ForQuiet(pod *corev1.Pod, v View) (fit Fit, quiet func() bool)
}

// Prechecker is a Filter that may refuse a pod whatever the node.
type Prechecker interface {
	// Precheck returns the refusal for all nodes. A final one is not worth a
	// preemption.
	Precheck(pod *corev1.Pod, v View) Reason
}

// Gate is a Filter that may know that looking at a pod is no use yet. Unlike a
// refusal that makes no event and no condition, and counts as no attempt: the pod
// waits for what the filter heeds.
type Gate interface {
	// Shut says why, "" when the pod may be looked at.
	Shut(pod *corev1.Pod, v View) string
}

// Remedy is a Filter that may know what to do about a pod that fits nowhere, short
// of evicting others.
type Remedy interface {
	// Remedy returns what is to be done beside the decisions, and the words for
	// it; nil stands for nothing. It speaks of the attempt that has just failed.
	Remedy(pod *corev1.Pod, v View) (do func(ctx context.Context, t client.Transport) error, text string)
}

// Reserver is a Filter that has something to do once a node is chosen.
type Reserver interface {
	// Reserve takes what the pod needs on n, in memory; a nil Reservation means
	// nothing. It is called by the goroutine that decides.
	Reserve(pod *corev1.Pod, n *Node, v View) (Reservation, error)
}

// Reservation is what a pod holds between decision and binding. Prepare and Undo
// run beside the decisions, one after the other and at most once. When they are
// through, the goroutine that decides calls Keep or Release, once.
type Reservation interface {
	// Prepare does what must be done before the binding is written; an error
	// sends the pod back.
	Prepare(ctx context.Context, h Hand) error
	// Undo takes back what Prepare wrote, after it or a later step has failed.
	Undo(ctx context.Context, h Hand)
	// Keep notes that the pod is bound.
	Keep()
	// Release gives back what was taken.
	Release()
}

// Hand is what a Reservation works with.
type Hand struct {
	client.Transport
	// Event tells of the pod; kind is corev1.EventTypeNormal or -Warning.
	Event func(kind, reason, text string)
}

// Score prefers some of the nodes that passed.
type Score interface {
	// Name is upstream's plugin name.
	Name() string
	// Depends says how long a number holds.
	Depends() Dependence
	// Weight multiplies the score of 0 to MaxScore.
	Weight() int64
	// For looks at a pod once. A nil Rating means no preference.
	For(pod *corev1.Pod, v View) Rating
}

// MaxScore is the best that one Score can give a node.
const MaxScore = 100

// Rating gives each node a number; larger is better.
type Rating interface {
	Rate(n *Node) int64
	// Normalise brings the numbers of all feasible nodes into 0 to MaxScore. For a
	// Score that is OnNode or OnPods nodes is nil, and of many numbers that are the
	// same it makes what it makes of one.
	Normalise(nodes []*Node, scores []int64)
}

// PlainRating is a Rating whose numbers count as they are: its Normalise leaves them
// alone. They are added up once for each state of a node.
type PlainRating interface {
	// Plain does nothing: that it is there says so.
	Plain()
}

// QuietRating is a Rating that may know that it prefers no node just now.
type QuietRating interface {
	// Quiet, asked once at each attempt, says that every node would get 0.
	Quiet() bool
}

// Surveyor is a Rating that wants to see the feasible nodes of each attempt
// before it rates them.
type Surveyor interface {
	Survey(feasible []*Node)
}

// View is the cluster as a scheduling decision sees it. It does not change while
// a decision is made. What it counts stays current afterwards.
type View interface {
	// Nodes are all nodes, in the order in which they are looked at.
	Nodes() []*Node
	// Node is the named node, nil when it is unknown.
	Node(name string) *Node
	// NamespaceLabels are the labels of a namespace, nil when it is unknown.
	NamespaceLabels(namespace string) map[string]string
	// Tally counts the pods that a Count means, by topology domain, from now on
	// for as long as equal pods are being scheduled.
	Tally(c Count) *Tally
	// Held are the affinity terms of the pods on nodes.
	Held() *Held
	// NodesWithImage counts the nodes that have an image.
	NodesWithImage(name string) int
	// ClaimUsers counts the pods on nodes that use a claim, "namespace/name".
	ClaimUsers(claim string) int
	// Storage are the objects about volumes.
	Storage() Storage
	// Devices are the devices of the cluster, and whose they are.
	Devices() *device.Ledger
	// Selector selects the pods that belong together with one by its services
	// and its controller; nil when nothing does.
	Selector(pod *corev1.Pod) labels.Selector
}

// Linear maps the largest number to MaxScore and zero to zero; reversed, small
// numbers are the good ones.
func Linear(scores []int64, reverse bool) {
	var highest int64
	for _, s := range scores {
		highest = max(highest, s)
	}
	for i, s := range scores {
		if highest > 0 {
			s = s * MaxScore / highest
		}
		if reverse {
			s = MaxScore - s
		}
		scores[i] = s
	}
}
