package seeded

import (
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller/nodeipam"
)

// ghost is how the nodes begin that are nothing but their objects: they come and go for
// the sake of the ranges that they are given.
const ghost = "ghost"

// nodeRanges are what nodes are given of in lives that have such: hardly more than are
// needed, so that what one leaves another gets.
func (w *world) nodeRanges() nodeipam.Config {
	if !w.ranges {
		return nodeipam.Config{}
	}
	return nodeipam.Config{Clusters: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/21")}, Bits4: 24}
}

// ghostsLife lets nodes come, several at once, and go, and come again under their names.
// Nothing is placed on them.
func (w *world) ghostsLife() {
	if w.trouble.nodes {
		return // there are enough nodes that come and go
	}
	come := func(name string) func() {
		return func() {
			w.ask("create node "+name, func() error {
				n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{
					Taints: []corev1.Taint{{Key: ghost, Effect: corev1.TaintEffectNoExecute}}}}
				_, err := client.Nodes.Create(w.t.Context(), w.admin, n)
				return err
			})
		}
	}
	leave := func(name string) func() {
		return func() {
			w.ask("delete node "+name, func() error {
				return client.Nodes.Delete(w.t.Context(), w.admin, "", name, metav1.DeleteOptions{})
			})
		}
	}
	for range 1 + w.rng.IntN(2) {
		at := w.within(busy / 2)
		for _, name := range []string{ghost + "0", ghost + "1"} {
			w.later(at, "admin", come(name))
			w.later(at+10*time.Second+w.within(busy/4), "admin", leave(name))
			w.later(at+busy/3+w.within(busy/8), "admin", come(name))
		}
	}
}

// layGhosts lets the ghosts go for good.
func (w *world) layGhosts() {
	for _, name := range []string{ghost + "0", ghost + "1"} {
		_ = client.Nodes.Delete(w.t.Context(), w.admin, "", name, metav1.DeleteOptions{}) // or it is gone
	}
}

func isGhost(n *corev1.Node) bool { return strings.HasPrefix(n.Name, ghost) }

// machines are the nodes that are more than their objects.
func (o *oracle) machines() []*corev1.Node {
	var all []*corev1.Node
	for _, n := range list(o, client.Nodes) {
		if !isGhost(n) {
			all = append(all, n)
		}
	}
	return all
}

// checkRanges: no two nodes have one range, and none is given another.
func (o *oracle) checkRanges() {
	if !o.w.ranges {
		return
	}
	owner := map[string]string{}
	for _, n := range list(o, client.Nodes) {
		uid := string(n.UID)
		if had := o.bound[uid]; had != "" && had != n.Spec.PodCIDR {
			o.w.fail("node %s had range %s, and now %q", n.Name, had, n.Spec.PodCIDR)
		}
		o.bound[uid] = n.Spec.PodCIDR
		if r := n.Spec.PodCIDR; r != "" {
			if other := owner[r]; other != "" {
				o.w.fail("nodes %s and %s have one range, %s", other, n.Name, r)
			}
			owner[r] = n.Name
		}
	}
}

// finalRanges: every node has one.
func (o *oracle) finalRanges() {
	for _, n := range list(o, client.Nodes) {
		if o.w.ranges && n.Spec.PodCIDR == "" {
			o.w.fail("node %s has no range", n.Name)
		}
	}
}
