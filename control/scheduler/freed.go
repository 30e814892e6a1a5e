package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
)

// freed is what freeing a node for a pod of a class came to: it is the same for the
// next one while the node and its pods are as they were.
type freed struct {
	state, renewed uint64
	priority       int32
	way            *preemption
	why            Reason
}

// freeing is victims, which it need not ask when nothing but the node and its pods can
// matter, and those are as when it was asked before.
func (r *rules) freeing(pod *corev1.Pod, n *Node, k *class, c *cluster, budgets []*policyv1.PodDisruptionBudget) (*preemption, Reason) {
	if len(budgets) > 0 || len(c.nominated[n.host]) > 0 || n.slot >= len(k.known) || !k.quiet(r.own) {
		return r.victims(pod, n, k, c, budgets)
	}
	if len(k.freed) < len(k.known) {
		k.freed = append(k.freed, make([]freed, len(k.known)-len(k.freed))...)
	}
	if at := &k.freed[n.slot]; at.state == n.state && at.renewed == n.renewed && at.priority == priority(pod) {
		return at.way, at.why
	}
	way, why := r.victims(pod, n, k, c, budgets)
	k.freed[n.slot] = freed{n.state, n.renewed, priority(pod), way, why}
	return way, why
}

// remember returns what is to be called when the node is again as it is now: what is
// known of it holds then.
func (k *class) remember(n *Node, c *cluster) func() {
	state, known := n.state, knowledge{}
	if n.slot < len(k.known) {
		known = k.known[n.slot]
	}
	return func() {
		n.state, c.states[n.slot] = state, state
		if n.slot < len(k.known) {
			k.known[n.slot] = known
		}
	}
}
