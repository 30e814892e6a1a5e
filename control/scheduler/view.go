package scheduler

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/scheduler/device"
)

// cluster is the View of the one goroutine that schedules. It is changed by the
// events between decisions, one object at a time, and never rebuilt: to see what
// would be, pods are placed and lifted again.
type cluster struct {
	nodes map[string]*Node
	slots []*Node // by slot; nil where none is
	free  []int   // slots that are nil
	// states are those of the nodes, by slot: a decision reads many, and nothing else
	// of most nodes.
	states []uint64
	// order are the nodes that exist, zones in turn, and turns their slots; nil when
	// they must be made again.
	order []*Node
	turns []int32
	pods  map[types.UID]*Pod
	keys  intern
	// generation is in the last state that any node got.
	generation uint64

	namespaces map[string]map[string]string
	groups     map[string]*group
	tallies    []*Tally
	// labels are the domains that tallies count by, by the label's key.
	labels   map[string]*domains
	held     Held
	holdings map[string]*holding
	// images counts the nodes that have an image; imagery changes with it.
	images  map[string]int
	imagery uint64
	// claims counts the pods on nodes that use a claim.
	claims map[string]int
	// nominated are the pods that wait for a node to be freed for them.
	nominated map[string][]*corev1.Pod
	nominee   map[types.UID]string
	storage   Storage
	devices   *device.Ledger
	selector  func(*corev1.Pod) labels.Selector
	// asked: somebody has called Selector.
	asked bool
}

func newCluster() *cluster {
	return &cluster{
		nodes: map[string]*Node{}, pods: map[types.UID]*Pod{}, namespaces: map[string]map[string]string{},
		groups: map[string]*group{}, labels: map[string]*domains{}, holdings: map[string]*holding{}, images: map[string]int{}, claims: map[string]int{},
		nominated: map[string][]*corev1.Pod{}, nominee: map[types.UID]string{},
		storage: NoStorage{}, devices: device.NewLedger(), selector: func(*corev1.Pod) labels.Selector { return nil },
	}
}

// Nodes implements View. Zones take turns, so that a part of the nodes is a fair
// sample of them; within a zone the order is that of the names.
func (c *cluster) Nodes() []*Node {
	if c.order != nil {
		return c.order
	}
	zones := map[string][]*Node{}
	for _, n := range c.slots {
		if n != nil && n.Node != nil {
			zones[zone(n)] = append(zones[zone(n)], n)
		}
	}
	names := slices.Sorted(maps.Keys(zones))
	longest := 0
	for _, nodes := range zones {
		slices.SortFunc(nodes, func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
		longest = max(longest, len(nodes))
	}
	c.order, c.turns = make([]*Node, 0, len(c.slots)), make([]int32, 0, len(c.slots))
	for i := range longest {
		for _, name := range names {
			if nodes := zones[name]; i < len(nodes) {
				c.order, c.turns = append(c.order, nodes[i]), append(c.turns, int32(nodes[i].slot)) //nolint:gosec // as many as there are nodes
			}
		}
	}
	return c.order
}

// Node implements View.
func (c *cluster) Node(name string) *Node {
	if n, ok := c.nodes[name]; ok && n.Node != nil {
		return n
	}
	return nil
}

// zone is a node's region and zone.
func zone(n *Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + "\x00" + n.Labels[corev1.LabelTopologyZone]
}

// NamespaceLabels implements View.
func (c *cluster) NamespaceLabels(namespace string) map[string]string {
	return c.namespaces[namespace]
}

// Held implements View.
func (c *cluster) Held() *Held { return &c.held }

// NodesWithImage implements View.
func (c *cluster) NodesWithImage(name string) int { return c.images[name] }

// Storage implements View.
func (c *cluster) Storage() Storage { return c.storage }

// Devices implements View.
func (c *cluster) Devices() *device.Ledger { return c.devices }

// Selector implements View.
func (c *cluster) Selector(pod *corev1.Pod) labels.Selector {
	c.asked = true
	return c.selector(pod)
}

// setNamespace takes over a namespace's labels; nil forgets it.
func (c *cluster) setNamespace(name string, set map[string]string) {
	before := c.namespaces[name]
	if set == nil {
		delete(c.namespaces, name)
	} else {
		c.namespaces[name] = set
	}
	if !equalLabels(before, set) {
		c.relabelled(name)
	}
}

func (c *cluster) touch(n *Node, object bool) {
	c.generation++
	n.state, c.states[n.slot] = c.generation, c.generation
	if object {
		n.object = c.generation
	}
}

// node returns the named node, made without an object if it is not known.
func (c *cluster) node(name string) *Node {
	n, ok := c.nodes[name]
	if ok {
		return n
	}
	n = &Node{Pods: map[types.UID]*Pod{}, HostPorts: map[HostPort]int{}, host: name, slot: len(c.slots)}
	if last := len(c.free) - 1; last >= 0 {
		n.slot, c.free = c.free[last], c.free[:last]
		c.slots[n.slot] = n
	} else {
		c.slots, c.states = append(c.slots, n), append(c.states, 0)
	}
	c.nodes[name] = n
	c.touch(n, true)
	return n
}

// setNode takes over a node's new state.
func (c *cluster) setNode(obj *corev1.Node) {
	n := c.node(obj.Name)
	old := n.Node
	if old != nil && !differs(old, obj) {
		n.Node = obj
		return
	}
	moved := old == nil || !equalLabels(old.Labels, obj.Labels) || !apiequality.Semantic.DeepEqual(old.Spec, obj.Spec)
	if moved {
		c.order = nil
		c.unmap(n)
	}
	c.picture(n, -1)
	n.set(obj)
	c.picture(n, 1)
	c.touch(n, true)
	if !moved {
		return
	}
	for _, t := range c.tallies {
		t.join(n)
	}
	for _, t := range c.held.terms {
		t.join(n)
	}
}

// differs says whether anything about a node is new that placing pods depends on:
// most updates of nodes are heartbeats.
func differs(old, now *corev1.Node) bool {
	return old.UID != now.UID || !equalLabels(old.Labels, now.Labels) ||
		!apiequality.Semantic.DeepEqual(old.Spec, now.Spec) ||
		!apiequality.Semantic.DeepEqual(old.Status.Allocatable, now.Status.Allocatable) ||
		!slices.Equal(old.Status.DeclaredFeatures, now.Status.DeclaredFeatures) ||
		!apiequality.Semantic.DeepEqual(old.Status.Images, now.Status.Images)
}

// unmap takes a node out of all topology.
func (c *cluster) unmap(n *Node) {
	for _, d := range c.labels {
		d.forget(n.slot)
	}
	for _, t := range c.tallies {
		t.leave(n.slot)
	}
	for _, t := range c.held.terms {
		t.leave(n.slot)
	}
}

// picture counts a node's images in or out.
func (c *cluster) picture(n *Node, sign int) {
	for name := range n.Images {
		if c.images[name] += sign; c.images[name] == 0 {
			delete(c.images, name)
		}
	}
	if len(n.Images) > 0 {
		c.imagery++
	}
}

// removeNode forgets a node; pods that are still bound to it are remembered, in
// case it comes back.
func (c *cluster) removeNode(name string) {
	n, ok := c.nodes[name]
	if !ok {
		return
	}
	c.unmap(n)
	c.picture(n, -1)
	n.set(nil)
	c.order = nil
	c.drop(n)
}

// drop gives up a node that has neither object nor pods.
func (c *cluster) drop(n *Node) {
	if n.Node == nil && len(n.Pods) == 0 {
		delete(c.nodes, n.host)
		c.slots[n.slot] = nil
		c.free = append(c.free, n.slot)
	}
}

// place puts a pod on a node, or moves its newer state there. It says whether
// anything that others depend on is new.
func (c *cluster) place(pod *corev1.Pod, node string) (news bool) {
	if p, ok := c.pods[pod.UID]; ok {
		if c.nodes[node] == p.node && c.replace(p, pod) {
			return false
		}
		c.lift(pod.UID)
	}
	c.put(newPod(pod, c.groupKey(pod)), c.node(node))
	return true
}

// replace takes over a pod's newer state where nothing else follows from it.
func (c *cluster) replace(p *Pod, pod *corev1.Pod) bool {
	if (p.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil) || !equalLabels(p.Labels, pod.Labels) {
		return false
	}
	if requests := Requests(pod); !requests.equal(&p.Requests) {
		return false
	}
	p.Pod = pod
	c.generation++
	p.node.renewed = c.generation
	return true
}

// put puts a pod that is nowhere on a node.
func (c *cluster) put(p *Pod, n *Node) {
	p.node = n
	n.Pods[p.UID] = p
	n.count(p, 1)
	c.pods[p.UID] = p
	c.join(p)
	p.held = c.hold(p.Pod)
	c.carry(p, 1)
	c.use(p.Pod, 1)
	c.touch(n, false)
}

// use counts the claims of a pod.
func (c *cluster) use(pod *corev1.Pod, by int) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		key := pod.Namespace + "/"
		switch {
		case v.PersistentVolumeClaim != nil:
			key += v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			key += pod.Name + "-" + v.Name
		default:
			continue
		}
		if c.claims[key] += by; c.claims[key] == 0 {
			delete(c.claims, key)
		}
	}
}

// ClaimUsers implements View.
func (c *cluster) ClaimUsers(claim string) int { return c.claims[claim] }

// carry counts the terms that a pod holds in or out of its node.
func (c *cluster) carry(p *Pod, by int32) {
	if p.held == nil {
		return
	}
	for _, t := range p.held.terms {
		t.add(p.node.slot, by)
	}
}

// lift takes a pod off its node, if it is on one.
func (c *cluster) lift(uid types.UID) bool {
	p, ok := c.pods[uid]
	if !ok {
		return false
	}
	n := p.node
	delete(c.pods, uid)
	delete(n.Pods, uid)
	n.count(p, -1)
	c.carry(p, -1)
	c.use(p.Pod, -1)
	c.release(p.held)
	c.part(p)
	c.touch(n, false)
	c.drop(n)
	return true
}

// nominate notes that node is being freed for a pod; "" takes the note back. It
// returns the node that was noted before.
func (c *cluster) nominate(pod *corev1.Pod, node string) (before string) {
	before, ok := c.nominee[pod.UID]
	if ok {
		delete(c.nominee, pod.UID)
		c.nominated[before] = slices.DeleteFunc(c.nominated[before], func(p *corev1.Pod) bool { return p.UID == pod.UID })
		if len(c.nominated[before]) == 0 {
			delete(c.nominated, before)
		}
	}
	if node != "" {
		c.nominee[pod.UID] = node
		c.nominated[node] = append(c.nominated[node], pod)
	}
	return before
}

func milli(n int64) *resource.Quantity { return resource.NewMilliQuantity(n, resource.DecimalSI) }
func bytes(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }
