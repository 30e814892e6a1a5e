package scheduler

// Count says what a Tally counts.
type Count struct {
	// Key is the node label whose values are the domains.
	Key string
	// Means says whether pods of a namespace with these labels count.
	Means func(namespace string, labels map[string]string) bool
	// ByNamespaceLabels: Means looks at the labels of namespaces.
	ByNamespaceLabels bool
	// Living leaves out pods that are being deleted.
	Living bool
	// Eligible says whether a node, and what is on it, counts at all; nil means
	// that every node does.
	Eligible func(n *Node) bool
}

// Tally counts pods by topology domain. It is kept current as pods come and go,
// at a cost that does not depend on the number of nodes.
type Tally struct {
	Count
	by     *domains
	of     []int32 // slot → domain, none for a node that does not count
	pods   []int32 // slot → pods
	counts []int32 // domain → pods
	nodes  []int32 // domain → nodes that count
	// level counts the domains that have nodes by their number of pods; least is
	// the lowest number that any has.
	level   []int32
	least   int32
	domains int
	total   int
}

func (c *cluster) newTally(count Count) *Tally { return &Tally{Count: count, by: c.domains(count.Key)} }

// On is how many pods count in the node's domain; ok is false when the node has
// no such label.
func (t *Tally) On(n *Node) (count int, ok bool) {
	if id := t.domain(n.slot); id != none {
		return int(t.counts[id]), true
	}
	id := t.by.at(n)
	if id == none {
		return 0, false
	}
	if int(id) < len(t.counts) { // the node itself does not count, but others of its domain may
		return int(t.counts[id]), true
	}
	return 0, true
}

// Here is how many pods count on the node itself.
func (t *Tally) Here(n *Node) int {
	if n.slot < len(t.pods) {
		return int(t.pods[n.slot])
	}
	return 0
}

// Domain numbers the node's domain, from 0; negative when it is in none.
func (t *Tally) Domain(n *Node) int { return int(t.domain(n.slot)) }

// Least is the number of pods of the domain that has fewest, 0 without domains.
func (t *Tally) Least() int {
	if t.domains == 0 {
		return 0
	}
	return int(t.least)
}

// Domains is how many domains have nodes that count.
func (t *Tally) Domains() int { return t.domains }

// Total is the number of pods in all domains.
func (t *Tally) Total() int { return t.total }

func (t *Tally) domain(slot int) int32 {
	if slot < len(t.of) {
		return t.of[slot]
	}
	return none
}

// add counts pods on the node of a slot.
func (t *Tally) add(slot int, pods int32) {
	for len(t.pods) <= slot {
		t.pods = append(t.pods, 0)
	}
	t.pods[slot] += pods
	if id := t.domain(slot); id != none {
		t.shift(id, pods)
	}
}

// join lets a node count, with the pods that are on it.
func (t *Tally) join(n *Node) {
	id := t.by.at(n)
	if id == none || t.Eligible != nil && !t.Eligible(n) {
		return
	}
	for len(t.counts) <= int(id) {
		t.counts, t.nodes = append(t.counts, 0), append(t.nodes, 0)
	}
	for len(t.of) <= n.slot {
		t.of = append(t.of, none)
	}
	t.of[n.slot] = id
	if t.nodes[id]++; t.nodes[id] == 1 {
		t.domains++
		t.raise(t.counts[id], 1)
		if t.domains == 1 || t.counts[id] < t.least {
			t.least = t.counts[id]
		}
	}
	if n.slot < len(t.pods) && t.pods[n.slot] != 0 {
		t.shift(id, t.pods[n.slot])
	}
}

// leave lets the node of a slot count no longer.
func (t *Tally) leave(slot int) {
	t.by.forget(slot)
	id := t.domain(slot)
	if id == none {
		return
	}
	if slot < len(t.pods) && t.pods[slot] != 0 {
		t.shift(id, -t.pods[slot])
	}
	t.of[slot] = none
	if t.nodes[id]--; t.nodes[id] == 0 {
		t.domains--
		t.raise(t.counts[id], -1)
		t.settle()
	}
}

// shift changes a domain's count.
func (t *Tally) shift(id, pods int32) {
	t.raise(t.counts[id], -1)
	t.counts[id] += pods
	t.total += int(pods)
	t.raise(t.counts[id], 1)
	if t.counts[id] < t.least {
		t.least = t.counts[id]
		return
	}
	t.settle()
}

func (t *Tally) raise(count, by int32) {
	for len(t.level) <= int(count) {
		t.level = append(t.level, 0)
	}
	t.level[count] += by
}

// settle finds the lowest number again when no domain has the last one any more.
func (t *Tally) settle() {
	for t.domains > 0 && t.level[t.least] == 0 {
		t.least++
	}
}
