package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// cluster is the View of the one goroutine that schedules. It is changed by the
// events between decisions, one object at a time, and never rebuilt.
type cluster struct {
	nodes map[string]*Node
	// order are the nodes that exist, by name; nil when it must be made again.
	order []*Node
	// affine are those with pods that have affinity; kept with order.
	affine     []*Node
	at         map[types.UID]string
	namespaces map[string]map[string]string
	// nominated are the pods that wait for a node to be freed for them.
	nominated map[string]map[types.UID]*corev1.Pod
}

func newCluster() *cluster {
	return &cluster{
		nodes: map[string]*Node{}, at: map[types.UID]string{},
		namespaces: map[string]map[string]string{}, nominated: map[string]map[types.UID]*corev1.Pod{},
	}
}

// Nodes implements View.
func (c *cluster) Nodes() []*Node {
	if c.order == nil {
		c.order = make([]*Node, 0, len(c.nodes))
		for _, n := range c.nodes {
			if n.Node != nil {
				c.order = append(c.order, n)
			}
		}
		byName(c.order)
	}
	return c.order
}

// WithAffinity implements View.
func (c *cluster) WithAffinity() []*Node {
	if c.affine == nil {
		c.affine = []*Node{}
		for _, n := range c.Nodes() {
			if n.affine > 0 {
				c.affine = append(c.affine, n)
			}
		}
	}
	return c.affine
}

// NamespaceLabels implements View.
func (c *cluster) NamespaceLabels(namespace string) map[string]string {
	return c.namespaces[namespace]
}

// setNode takes over a node's new state.
func (c *cluster) setNode(obj *corev1.Node) {
	n, ok := c.nodes[obj.Name]
	if !ok || n.Node == nil {
		c.order, c.affine = nil, nil
	}
	if ok {
		n.set(obj)
		return
	}
	c.nodes[obj.Name] = newNode(obj)
}

// removeNode forgets a node; pods that are still bound to it are remembered, in
// case it comes back.
func (c *cluster) removeNode(name string) {
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	n.Node = nil
	if len(n.Pods) == 0 {
		delete(c.nodes, name)
	}
	c.order, c.affine = nil, nil
}

// place puts a pod on a node, or moves its newer state there.
func (c *cluster) place(pod *corev1.Pod, node string) {
	c.lift(pod.UID)
	n, ok := c.nodes[node]
	if !ok {
		n = newNode(nil)
		c.nodes[node] = n
	}
	before := n.affine
	n.add(pod)
	if before != n.affine {
		c.affine = nil
	}
	c.at[pod.UID] = node
}

// lift takes a pod off its node, if it is on one.
func (c *cluster) lift(uid types.UID) bool {
	name, ok := c.at[uid]
	if !ok {
		return false
	}
	delete(c.at, uid)
	n := c.nodes[name]
	before := n.affine
	n.remove(uid)
	if before != n.affine {
		c.affine = nil
	}
	if n.Node == nil && len(n.Pods) == 0 {
		delete(c.nodes, name)
	}
	return true
}

// nominate notes that node is being freed for a pod; "" takes the note back.
func (c *cluster) nominate(pod *corev1.Pod, node string) {
	for name, pods := range c.nominated {
		if delete(pods, pod.UID); len(pods) == 0 {
			delete(c.nominated, name)
		}
	}
	if node == "" {
		return
	}
	if c.nominated[node] == nil {
		c.nominated[node] = map[types.UID]*corev1.Pod{}
	}
	c.nominated[node][pod.UID] = pod
}

// what if: a view in which one node is replaced.
type supposed struct {
	*cluster
	node   *Node
	nodes  []*Node
	affine []*Node
}

// suppose is the cluster with one node in another state.
func (c *cluster) suppose(node *Node) *supposed {
	s := &supposed{cluster: c, node: node}
	s.nodes = slices.Clone(c.Nodes())
	for i, n := range s.nodes {
		if n.Name == node.Name {
			s.nodes[i] = node
		}
	}
	for _, n := range s.nodes {
		// The node itself always counts: pods will come and go on it.
		if n.affine > 0 || n == node {
			s.affine = append(s.affine, n)
		}
	}
	return s
}

// Nodes implements View.
func (s *supposed) Nodes() []*Node { return s.nodes }

// WithAffinity implements View.
func (s *supposed) WithAffinity() []*Node { return s.affine }

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }
func bytes(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }
