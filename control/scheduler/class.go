package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxClasses bounds the classes kept; the one not used for longest goes first. A
// class takes about 40 bytes a node and keeps its tallies current.
const maxClasses = 48

// class is a set of pods between which the filters and scores cannot tell: those
// of one owner, mostly. What was found out about a node for one of them is kept
// for the others until the node changes.
type class struct {
	key    string
	used   uint64 // when last, in decisions
	uses   int
	filter [OnItself][]prepared[Fit] // by dependence
	score  []prepared[Rating]
	// own and ownScores are the plugins that must be asked for each pod; early counts
	// those of own that are asked before what looks at the cluster, and beforehand
	// those of them that have something to say this time.
	own               []Filter
	early, beforehand int
	ownScores         []Score
	tallies           []*Tally
	// owned: a plugin has asked what selects the pod.
	owned   bool
	imagery uint64

	// known is what is known by slot; empty until the class is used a second time.
	known []knowledge
	// freed is what freeing nodes came to, by slot; empty until somebody asks.
	freed []freed
	// raw are the scores that do not depend on other nodes, by score and slot; sums
	// add up, by slot and weighted, those that plain says count as they are.
	raw   [][]int64
	plain []bool
	sums  []int64
	// verdicts are the different refusals so far; knowledge has their indices,
	// from 1.
	verdicts []verdict
	numbers  map[verdictKey]int32
	last     int32
	// only are the nodes that are in question when narrowed says so, by the
	// word of the plugins in narrowing.
	only      []string
	narrowed  bool
	narrowing []string
	names     []string // of the scores
}

// maxVerdicts bounds the different refusals that a class remembers.
const maxVerdicts = 4096

// prepared is what one plugin has to say about a class.
type prepared[T any] struct {
	name    string
	depends Dependence
	weight  int64
	say     T
	// quiet is what a QuietFilter has to say; it may be nil.
	quiet func() bool
}

// knowledge is what is known of a node: the verdict of the filters that look at
// nothing but the node, while it is in this state.
type knowledge struct {
	state, object uint64
	scored        uint64 // the state for which raw holds
	verdict       int32  // of OnNode and OnPods filters; 0 says yes
	fixed         int32  // of OnNode filters alone
}

// verdict is a refusal with who says it.
type verdict struct {
	filter string
	why    Reason
}

// classKey is one for pods between which no plugin can tell, but for those that
// depend on the pod itself.
func (c *cluster) classKey(pod *corev1.Pod) string {
	return c.keys.of(func(b []byte) []byte { return appendClass(b, pod) })
}

// appendClass writes a pod's classKey.
func appendClass(b []byte, pod *corev1.Pod) []byte {
	spec := corev1.PodSpec{
		NodeName: pod.Spec.NodeName, NodeSelector: pod.Spec.NodeSelector, Affinity: pod.Spec.Affinity, Tolerations: pod.Spec.Tolerations,
		TopologySpreadConstraints: pod.Spec.TopologySpreadConstraints, Overhead: pod.Spec.Overhead, Resources: pod.Spec.Resources,
		SchedulerName: pod.Spec.SchedulerName, OS: pod.Spec.OS, HostNetwork: pod.Spec.HostNetwork, HostUsers: pod.Spec.HostUsers,
	}
	var few [4]corev1.Container
	spec.Containers = few[:0]
	for i := range pod.Spec.Containers {
		spec.Containers = append(spec.Containers, relevant(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.InitContainers {
		spec.InitContainers = append(spec.InitContainers, relevant(&pod.Spec.InitContainers[i]))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Image != nil {
			spec.Volumes = append(spec.Volumes, v)
		}
	}
	b = appendLabels(append(b, pod.Namespace...), pod.Labels)
	if owner := metav1.GetControllerOf(pod); owner != nil {
		b = append(append(b, 1), owner.UID...)
	}
	b = append(b, 2)
	n, size := len(b), spec.Size()
	b = slices.Grow(b, size)[:n+size]
	if _, err := spec.MarshalToSizedBuffer(b[n:]); err != nil {
		b = append(b[:n], pod.UID...) // never: it was read from the same encoding
	}
	return b
}

// relevant is what of a container decides about its place.
func relevant(c *corev1.Container) corev1.Container {
	out := corev1.Container{
		Image: c.Image, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy, RestartPolicyRules: c.RestartPolicyRules,
	}
	for i := range c.VolumeMounts {
		if len(c.VolumeMounts[i].BindMountOptions) > 0 {
			out.VolumeMounts = append(out.VolumeMounts, c.VolumeMounts[i])
		}
	}
	return out
}

// classes are the classes of one profile.
type classes struct {
	byKey map[string]*class
	now   uint64
}

// class returns what is known of the pod's class.
func (r *rules) class(pod *corev1.Pod, key string, c *cluster) *class {
	r.classes.now++
	k, ok := r.classes.byKey[key]
	if !ok {
		if len(r.classes.byKey) >= maxClasses {
			r.evict(c)
		}
		k = r.study(pod, key, c)
		if r.classes.byKey == nil {
			r.classes.byKey = map[string]*class{}
		}
		r.classes.byKey[key] = k
	}
	k.used = r.classes.now
	k.refresh(c)
	return k
}

// evict forgets the class that has not been used for longest.
func (r *rules) evict(c *cluster) {
	var oldest *class
	for _, k := range r.classes.byKey {
		if oldest == nil || k.used < oldest.used {
			oldest = k
		}
	}
	delete(r.classes.byKey, oldest.key)
	c.forget(oldest.tallies)
}

// forgetOwned drops the classes that rest on what selects their pods.
func (r *rules) forgetOwned(c *cluster) {
	for key, k := range r.classes.byKey {
		if k.owned {
			c.forget(k.tallies)
			delete(r.classes.byKey, key)
		}
	}
}

// forgetAll drops all classes.
func (r *rules) forgetAll(c *cluster) {
	for key, k := range r.classes.byKey {
		c.forget(k.tallies)
		delete(r.classes.byKey, key)
	}
}

// study asks all plugins about a pod.
func (r *rules) study(pod *corev1.Pod, key string, c *cluster) *class {
	k := &class{key: key, verdicts: []verdict{{}}, numbers: map[verdictKey]int32{}}
	before, clustered := len(c.tallies), false
	c.asked = false
	for _, f := range r.filters {
		k.narrow(f, pod)
		if f.Depends() == OnItself {
			if k.own = append(k.own, f); !clustered {
				k.early = len(k.own)
			}
			continue
		}
		clustered = clustered || f.Depends() == OnCluster
		p := prepared[Fit]{name: f.Name()}
		if q, ok := f.(QuietFilter); ok {
			p.say, p.quiet = q.ForQuiet(pod, c)
		} else {
			p.say = f.For(pod, c)
		}
		if p.say != nil {
			k.filter[f.Depends()] = append(k.filter[f.Depends()], p)
		}
	}
	for _, s := range r.scores {
		if s.Depends() == OnItself {
			k.ownScores = append(k.ownScores, s)
			continue
		}
		if rating := s.For(pod, c); rating != nil {
			k.score = append(k.score, prepared[Rating]{name: s.Name(), depends: s.Depends(), weight: s.Weight(), say: rating})
		}
	}
	for _, s := range k.score {
		_, plain := s.say.(PlainRating)
		k.names, k.plain = append(k.names, s.name), append(k.plain, plain && s.depends <= OnPods)
	}
	k.raw = make([][]int64, len(k.score))
	k.tallies = append(k.tallies, c.tallies[before:]...)
	k.owned = c.asked
	return k
}

// narrow keeps the nodes that all filters who know them name.
func (k *class) narrow(f Filter, pod *corev1.Pod) {
	n, ok := f.(Narrower)
	if !ok {
		return
	}
	names, narrowed := n.Only(pod)
	if !narrowed {
		return
	}
	if k.narrowed {
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(k.only, name) })
	}
	k.only, k.narrowed = names, true
	k.narrowing = append(k.narrowing, f.Name())
}

// refresh makes room for all nodes once the class proves to be one.
func (k *class) refresh(c *cluster) {
	if k.imagery != c.imagery { // some nodes have other images: what one has counts by how many have it
		k.imagery = c.imagery
		for i := range k.known {
			k.known[i].scored = 0
		}
	}
	if len(k.verdicts) > maxVerdicts {
		clear(k.known)
		clear(k.numbers)
		k.verdicts, k.last = k.verdicts[:1], 0
	}
	if k.uses++; k.uses < 2 || len(k.known) >= len(c.slots) {
		return
	}
	room := len(c.slots) + len(c.slots)/8
	k.known = append(k.known, make([]knowledge, room-len(k.known))...)
	for i := range k.score {
		if k.score[i].depends != OnCluster {
			k.raw[i] = append(k.raw[i], make([]int64, room-len(k.raw[i]))...)
		}
	}
	k.sums = append(k.sums, make([]int64, room-len(k.sums))...)
}

// quiet says that in this attempt nothing but the node and its pods can speak
// against it.
func (k *class) quiet(own []prepared[Fit]) bool {
	if len(own) > 0 {
		return false
	}
	for i := range k.filter[OnCluster] {
		if q := k.filter[OnCluster][i].quiet; q == nil || !q() {
			return false
		}
	}
	return true
}

// fits says that the node in a slot is known to be good in this state of it.
func (k *class) fits(slot int32, state uint64) bool {
	if int(slot) >= len(k.known) {
		return false
	}
	known := &k.known[slot]
	return known.state == state && known.verdict == 0
}

// check asks the filters about a node, those whose answer is known excepted. It
// returns the index of the verdict; 0 is yes.
func (k *class) check(n *Node, own []prepared[Fit]) int32 {
	if at := k.local(n); at != 0 {
		return at
	}
	if len(own) == 0 {
		return k.ask(n, k.filter[OnCluster])
	}
	if at := k.ask(n, own[:k.beforehand]); at != 0 {
		return at
	}
	if at := k.ask(n, k.filter[OnCluster]); at != 0 {
		return at
	}
	return k.ask(n, own[k.beforehand:])
}

// local is the verdict of the filters that look at nothing but the node.
func (k *class) local(n *Node) int32 {
	if n.slot >= len(k.known) {
		if at := k.ask(n, k.filter[OnNode]); at != 0 {
			return at
		}
		return k.ask(n, k.filter[OnPods])
	}
	known := &k.known[n.slot]
	if known.state == n.state {
		return known.verdict
	}
	if known.object != n.object {
		known.fixed = k.ask(n, k.filter[OnNode])
		known.object = n.object
	}
	known.verdict = known.fixed
	if known.verdict == 0 {
		known.verdict = k.ask(n, k.filter[OnPods])
	}
	known.state = n.state
	return known.verdict
}

// ask asks some filters.
func (k *class) ask(n *Node, filters []prepared[Fit]) int32 {
	for i := range filters {
		if why := filters[i].say(n); why.Refuses() {
			return k.note(filters[i].name, why)
		}
	}
	return 0
}

// note gives a refusal a number.
func (k *class) note(filter string, why Reason) int32 {
	if v := &k.verdicts[k.last]; v.filter == filter && v.why.Text == why.Text && v.why.Final == why.Final && v.why.Failed == why.Failed && len(v.why.More)+len(why.More) == 0 {
		return k.last
	}
	key := verdictKey{filter, why.Text, strings.Join(why.More, "\n"), why.Final, why.Failed}
	at, ok := k.numbers[key]
	if !ok {
		at = int32(len(k.verdicts))
		k.verdicts = append(k.verdicts, verdict{filter, why})
		k.numbers[key] = at
	}
	k.last = at
	return at
}

type verdictKey struct {
	filter, text, more string
	final, failed      bool
}
