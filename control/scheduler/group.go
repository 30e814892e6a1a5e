package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// group is the pods on nodes that no selector can tell apart.
type group struct {
	key       string
	namespace string
	labels    map[string]string
	deleting  bool
	// on counts the pods by slot.
	on   map[int]int32
	pods int
	// tallies and held are those that mean these pods.
	tallies []*Tally
}

// groupKey is one for pods that no selector can tell apart.
func (c *cluster) groupKey(pod *corev1.Pod) string {
	return c.keys.of(func(b []byte) []byte {
		b = append(b, pod.Namespace...)
		if pod.DeletionTimestamp != nil {
			b = append(b, 1)
		}
		return appendLabels(b, pod.Labels)
	})
}

// appendLabels writes labels in the order of their keys.
func appendLabels(b []byte, labels map[string]string) []byte {
	var few [8]string
	keys := few[:0]
	for k := range labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = append(append(b, 0), k...)
		b = append(append(b, '='), labels[k]...)
	}
	return b
}

// join puts a pod into its group.
func (c *cluster) join(p *Pod) {
	g, ok := c.groups[p.key]
	if !ok {
		g = &group{key: p.key, namespace: p.Namespace, labels: p.Labels, deleting: p.DeletionTimestamp != nil, on: map[int]int32{}}
		for _, t := range c.tallies {
			if g.meant(t) {
				g.tallies = append(g.tallies, t)
			}
		}
		c.groups[p.key] = g
	}
	p.group = g
	g.pods++
	g.on[p.node.slot]++
	for _, t := range g.tallies {
		t.add(p.node.slot, 1)
	}
}

// part takes a pod out of its group.
func (c *cluster) part(p *Pod) {
	g := p.group
	for _, t := range g.tallies {
		t.add(p.node.slot, -1)
	}
	if g.on[p.node.slot]--; g.on[p.node.slot] == 0 {
		delete(g.on, p.node.slot)
	}
	if g.pods--; g.pods == 0 {
		delete(c.groups, g.key)
	}
	p.group = nil
}

func (g *group) meant(t *Tally) bool {
	return !(t.Living && g.deleting) && t.Means(g.namespace, g.labels)
}

// Tally implements View. The tally lives as long as the class being prepared.
func (c *cluster) Tally(count Count) *Tally {
	t := c.newTally(count)
	for _, g := range c.groups {
		if g.meant(t) {
			g.tallies = append(g.tallies, t)
			for slot, pods := range g.on {
				t.add(slot, pods)
			}
		}
	}
	for _, n := range c.Nodes() {
		t.join(n)
	}
	c.tallies = append(c.tallies, t)
	return t
}

// forget drops the tallies made since there were n.
func (c *cluster) forget(drop []*Tally) {
	if len(drop) == 0 {
		return
	}
	dropped := func(t *Tally) bool { return slices.Contains(drop, t) }
	c.tallies = slices.DeleteFunc(c.tallies, dropped)
	for _, g := range c.groups {
		g.tallies = slices.DeleteFunc(g.tallies, dropped)
	}
}

// relabelled counts again what depends on the labels of a namespace.
func (c *cluster) relabelled(namespace string) {
	c.held.epoch++
	for _, g := range c.groups {
		if g.namespace != namespace {
			continue
		}
		for _, t := range c.tallies {
			if !t.ByNamespaceLabels {
				continue
			}
			at := slices.Index(g.tallies, t)
			switch means := g.meant(t); {
			case means && at < 0:
				g.tallies = append(g.tallies, t)
				for slot, pods := range g.on {
					t.add(slot, pods)
				}
			case !means && at >= 0:
				g.tallies = slices.Delete(g.tallies, at, at+1)
				for slot, pods := range g.on {
					t.add(slot, -pods)
				}
			}
		}
	}
}
