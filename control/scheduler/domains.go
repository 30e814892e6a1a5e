package scheduler

// domains numbers the values of one label of the nodes, from 0. All tallies over a label
// share one: to look a label up in thousands of nodes is most of what it takes to make
// a tally.
type domains struct {
	key string
	ids map[string]int32 // label value → domain
	of  []int32          // slot → domain, or one of the following
}

const (
	// none is the domain of a node without the label.
	none = -1
	// unknown is that of a node that nobody has asked for since it changed.
	unknown = -2
)

// maxDomains bounds the labels that are kept numbered, beyond those in use.
const maxDomains = 32

// domains finds or makes the numbers of a label. They are made anew when most values are
// those of nodes that have gone.
func (c *cluster) domains(key string) *domains {
	if d, ok := c.labels[key]; ok && len(d.ids) <= 2*len(c.slots)+maxDomains {
		return d
	}
	if len(c.labels) >= maxDomains {
		clear(c.labels) // tallies keep theirs
	}
	d := &domains{key: key, ids: map[string]int32{}}
	c.labels[key] = d
	return d
}

// at is the domain of a node, none without the label.
func (d *domains) at(n *Node) int32 {
	for len(d.of) <= n.slot {
		d.of = append(d.of, unknown)
	}
	if d.of[n.slot] == unknown {
		d.of[n.slot] = d.number(n)
	}
	return d.of[n.slot]
}

func (d *domains) number(n *Node) int32 {
	value, ok := n.Labels[d.key]
	if !ok {
		return none
	}
	id, known := d.ids[value]
	if !known {
		id = int32(len(d.ids)) //nolint:gosec // no more than nodes
		d.ids[value] = id
	}
	return id
}

// forget is told that the node of a slot changes, or goes.
func (d *domains) forget(slot int) {
	if slot < len(d.of) {
		d.of[slot] = unknown
	}
}
