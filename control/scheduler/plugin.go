package scheduler

import (
	corev1 "k8s.io/api/core/v1"
)

// Reason says in words why a pod cannot be on a node. The zero value means that
// it can.
type Reason struct {
	// Text reads after "2 node(s)": upstream's wording, which people search for.
	Text string
	// Final: removing other pods from the node would not help.
	Final bool
}

// OK is the reason for no refusal.
var OK Reason

// Refuses says whether r is a refusal.
func (r Reason) Refuses() bool { return r.Text != "" }

// Fit answers for one pod whether it can be on a node.
type Fit func(n *Node) Reason

// Filter is a rule that a node must pass. Filters are asked one after the other,
// cheap ones first, and the first refusal counts.
type Filter interface {
	// Name is upstream's plugin name.
	Name() string
	// For looks at a pod once, before it is held against nodes. A nil Fit means
	// that the rule has nothing to say about this pod.
	For(pod *corev1.Pod, v View) Fit
	// Helps says whether a change may let in a pod that this filter refused.
	Helps(pod *corev1.Pod, c Change) bool
}

// Score prefers some of the nodes that passed.
type Score interface {
	// Name is upstream's plugin name.
	Name() string
	// Weight multiplies the score of 0 to MaxScore.
	Weight() int64
	// For looks at a pod once. A nil Rating means no preference.
	For(pod *corev1.Pod, v View, feasible []*Node) Rating
}

// MaxScore is the best that one Score can give a node.
const MaxScore = 100

// Rating gives each node a number; larger is better.
type Rating interface {
	Rate(n *Node) int64
	// Normalise brings the numbers of all feasible nodes into 0 to MaxScore.
	Normalise(scores []int64)
}

// View is the cluster as a scheduling decision sees it. It does not change while
// a decision is made.
type View interface {
	// Nodes are all nodes, by name.
	Nodes() []*Node
	// WithAffinity are the nodes that have pods with pod (anti-)affinity.
	WithAffinity() []*Node
	// NamespaceLabels are the labels of a namespace, nil when it is unknown.
	NamespaceLabels(namespace string) map[string]string
}

// Change is something that happened in the cluster since a pod was refused.
type Change struct {
	// Kind says what the change is.
	Kind ChangeKind
	// Node is the node of a node change as it is now.
	Node *corev1.Node
	// Pod is the pod of a pod change.
	Pod *corev1.Pod
}

// ChangeKind is a kind of change.
type ChangeKind int

// The changes that can let a pod in.
const (
	NodeAdded ChangeKind = iota + 1
	NodeLabels
	NodeTaints
	NodeAllocatable
	PodPlaced  // a pod is on a node now, or its labels there changed
	PodRemoved // a pod has left its node
)

// Linear is a Normalise that maps the largest number to MaxScore and zero to
// zero; reversed, small numbers are the good ones.
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
