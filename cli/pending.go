package cli

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresource "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// pending explains a pod without a node from the scheduler's record, and names
// what would make it fit.
func (w *why) pending(ctx context.Context, pod *corev1.Pod) error {
	d, ok, err := w.records.Decision(ctx, pod.Namespace, pod.Name)
	if err != nil {
		return err
	}
	if !ok || d.UID != string(pod.UID) {
		w.say("pod %s/%s is pending, and the scheduler has not looked at it yet.", pod.Namespace, pod.Name)
		if pod.Spec.SchedulerName != corev1.DefaultSchedulerName {
			w.say("It asks for the scheduler %q: does that run?", pod.Spec.SchedulerName)
		}
		return nil
	}
	if len(d.Gates) > 0 {
		w.say("pod %s/%s is pending: the scheduling gates %s hold it back.", pod.Namespace, pod.Name, strings.Join(d.Gates, ", "))
		w.say("What would let it in: whoever set them takes them out of spec.schedulingGates.")
		return nil
	}
	if d.Nodes == 0 {
		w.say("pod %s/%s is pending: the cluster has no nodes.", pod.Namespace, pod.Name)
		return nil
	}
	w.say("pod %s/%s is pending: none of %s fits (attempt %d, %s ago).", pod.Namespace, pod.Name, nodes(d.Nodes), d.Attempt, age(d.At))
	for _, r := range d.Refusals {
		w.say("  %s: %s (%s)", nodes(r.Nodes), r.Reason, example(r))
	}
	if d.Nominated != "" {
		w.say("Room is being made on node %s: %s will leave it.", d.Nominated, strings.Join(d.Victims, ", "))
		return nil
	}
	free, err := w.room(ctx)
	if err != nil {
		return err
	}
	w.say("What would take away what stands in the way, on each of these nodes:")
	for _, r := range d.Refusals {
		w.say("  - %s", advice(pod, r, free))
	}
	return nil
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func example(r explain.Refusal) string {
	if r.Nodes == 1 {
		return r.Example
	}
	return fmt.Sprintf("%s and %d more", r.Example, r.Nodes-1)
}

// advice is what would turn one refusal into a yes.
func advice(pod *corev1.Pod, r explain.Refusal, free map[corev1.ResourceName]resource.Quantity) string {
	switch r.Filter {
	case "NodeResourcesFit":
		return resourceAdvice(pod, r, free)
	case "TaintToleration":
		return fmt.Sprintf("a toleration for the taint %s in the pod, or the taint's removal: kubectl taint node %s KEY-", braces(r.Reason), r.Example)
	case "NodeAffinity":
		return fmt.Sprintf("a node with the labels that the pod selects (%s): kubectl label node %s KEY=VALUE", wanted(pod), r.Example)
	case "NodeUnschedulable":
		return fmt.Sprintf("an end of the cordon: kubectl uncordon %s", r.Example)
	case "NodePorts":
		return fmt.Sprintf("another hostPort than %s, or none: a Service reaches pods without", ports(pod))
	case "NodeName":
		return fmt.Sprintf("a node called %q: the pod asks for that one alone", pod.Spec.NodeName)
	case "PodTopologySpread":
		return "room in the topology domains with the fewest pods, a larger maxSkew, or whenUnsatisfiable: ScheduleAnyway"
	case "InterPodAffinity":
		return "a node near the pods that its affinity asks for and away from those that anti-affinity names, or a preferred rule in place of a required one"
	}
	return "an end of: " + r.Reason
}

func resourceAdvice(pod *corev1.Pod, r explain.Refusal, free map[corev1.ResourceName]resource.Quantity) string {
	name := corev1.ResourceName(strings.TrimPrefix(r.Reason, "Insufficient "))
	if r.Reason == "Too many pods" {
		return "fewer pods on a node, or one node more: each takes only so many"
	}
	want := podresource.PodRequests(pod, podresource.PodResourcesOptions{})[name]
	most, ok := free[name]
	if !ok {
		return fmt.Sprintf("a node that offers %s: no node here does", name)
	}
	return fmt.Sprintf("a request of at most %s %s (it asks for %s), or as much freed on one node, or a larger node", most.String(), name, want.String())
}

// room is the most that any one schedulable node has free of each resource.
func (w *why) room(ctx context.Context) (map[corev1.ResourceName]resource.Quantity, error) {
	all, _, err := client.Nodes.List(ctx, w, "", metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	pods, _, err := client.Pods.List(ctx, w, "", metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	best := map[corev1.ResourceName]resource.Quantity{}
	for _, n := range all {
		free := n.Status.Allocatable.DeepCopy()
		for _, p := range pods {
			if p.Spec.NodeName == n.Name && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
				take(free, podresource.PodRequests(p, podresource.PodResourcesOptions{}))
			}
		}
		for name, q := range free {
			if known, ok := best[name]; !n.Spec.Unschedulable && (!ok || q.Cmp(known) > 0) {
				best[name] = q
			}
		}
	}
	return best, nil
}

func take(from corev1.ResourceList, what corev1.ResourceList) {
	for name, q := range what {
		if have, ok := from[name]; ok {
			have.Sub(q)
			from[name] = have
		}
	}
}

// braces is the part of a reason in braces.
func braces(s string) string {
	from, to := strings.IndexByte(s, '{'), strings.LastIndexByte(s, '}')
	if from < 0 || to < from {
		return s
	}
	return s[from : to+1]
}

// wanted are the node labels that a pod asks for.
func wanted(pod *corev1.Pod) string {
	var list []string
	for k, v := range pod.Spec.NodeSelector {
		list = append(list, k+"="+v)
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, e := range t.MatchExpressions {
				list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Key, e.Operator, strings.Join(e.Values, ","))))
			}
		}
	}
	return strings.Join(list, ", ")
}

func ports(pod *corev1.Pod) string {
	var list []string
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				list = append(list, fmt.Sprint(p.HostPort))
			}
		}
	}
	return strings.Join(list, ", ")
}
