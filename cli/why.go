package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// maxEvents bounds the events that why shows.
const maxEvents = 5

func whyCommand(s *Settings) *cobra.Command {
	namespace := ""
	cmd := &cobra.Command{
		Use: "why [TYPE/]NAME", Short: "Say why an object is as it is, and what would change that", Args: cobra.RangeArgs(1, 2),
		Long: `Say in words why an object is as it is. For a pod: why it is pending and what would
make it fit, why it was put on its node, or why its containers do not run. For a
deployment: what it waits for. For everything else: its last events. Without a type it is
the one pod, node, workload, service or claim of that name, or a container by its ID.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			if namespace == "" {
				namespace = server.namespace
			}
			at, err := server.meant(cmd.Context(), args, namespace)
			if err != nil {
				return err
			}
			w := &why{server: server, out: cmd.OutOrStdout()}
			return w.explain(cmd.Context(), at)
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "the object's namespace")
	return cmd
}

// why writes one explanation.
type why struct {
	*server
	out io.Writer
}

func (w *why) say(format string, args ...any) { fmt.Fprintf(w.out, format+"\n", args...) }

func (w *why) explain(ctx context.Context, at object) error {
	switch at.kind {
	case "pod":
		return w.pod(ctx, at)
	case "deployment":
		return w.deployment(ctx, at)
	case "node":
		return w.node(ctx, at)
	}
	w.say("%s %s/%s: what its events say", at.kind, at.namespace, at.name)
	return w.events(ctx, at)
}

// pod explains a pod by the first thing that keeps it from its end.
func (w *why) pod(ctx context.Context, at object) error {
	pod, err := client.Pods.Get(ctx, w, at.namespace, at.name)
	if err != nil {
		return err
	}
	switch {
	case pod.DeletionTimestamp != nil:
		w.terminating(pod)
	case pod.Spec.NodeName == "":
		return w.pending(ctx, pod)
	default:
		if err := w.placed(ctx, pod); err != nil {
			return err
		}
		w.containers(pod)
		if err := w.pulls(ctx, pod); err != nil {
			return err
		}
	}
	return w.events(ctx, at)
}

// pulls says how far the images are that a pod waits for: marks without an end.
func (w *why) pulls(ctx context.Context, pod *corev1.Pod) error {
	if pod.Status.Phase != corev1.PodPending {
		return nil
	}
	marks, err := w.records.Timeline(ctx, string(pod.UID))
	for _, m := range marks {
		if m.Name == explain.Pulling && m.End.IsZero() {
			w.say("On its way since %s: %s.", age(m.Start), m.Detail)
		}
	}
	return err
}

func (w *why) terminating(pod *corev1.Pod) {
	// The timestamp is when the grace period ends.
	if left := time.Until(pod.DeletionTimestamp.Time); left > 0 {
		w.say("pod %s/%s is being deleted; it has %s left to end by itself.", pod.Namespace, pod.Name, left.Round(time.Second))
	} else {
		w.say("pod %s/%s is being deleted; its time to end by itself is over since %s.", pod.Namespace, pod.Name, age(pod.DeletionTimestamp.Time))
	}
	if len(pod.Finalizers) > 0 {
		w.say("It stays until its finalizers are taken off: %s.", strings.Join(pod.Finalizers, ", "))
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil {
			w.say("Container %q still runs; it has until the grace period ends.", c.Name)
		}
	}
}

// placed says where a pod is, and why there.
func (w *why) placed(ctx context.Context, pod *corev1.Pod) error {
	w.say("pod %s/%s is %s on node %s.", pod.Namespace, pod.Name, phase(pod), pod.Spec.NodeName)
	d, ok, err := w.records.Decision(ctx, pod.Namespace, pod.Name)
	if err != nil || !ok || d.UID != string(pod.UID) || d.Node != pod.Spec.NodeName {
		return err
	}
	fit := d.Nodes - d.Refused() - d.Unseen
	w.say("The scheduler put it there at attempt %d, in %s: %d of %s fit.", d.Attempt, millis(d.Took), fit, nodes(d.Nodes))
	if len(d.Scores) > 1 {
		for i, s := range d.Scores[:min(3, len(d.Scores))] {
			w.say("  %d. %s with %d points (%s)", i+1, s.Node, s.Total, parts(s.Parts))
		}
	}
	return nil
}

func phase(pod *corev1.Pod) string {
	if pod.Status.Phase == "" {
		return "pending"
	}
	return strings.ToLower(string(pod.Status.Phase))
}

func parts(p map[string]int64) string {
	var list []string
	for name, points := range p {
		if points != 0 {
			list = append(list, fmt.Sprintf("%s %d", name, points))
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// containers says what each container that is not well waits for or died of.
func (w *why) containers(pod *corev1.Pod) {
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch {
		case c.State.Waiting != nil:
			w.say("Container %q waits: %s%s.", c.Name, c.State.Waiting.Reason, after(": ", c.State.Waiting.Message))
		case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
			w.say("Container %q ended: %s.", c.Name, ended(c.State.Terminated))
		case c.State.Running != nil && !c.Ready:
			w.say("Container %q runs since %s, but is not ready: its readiness or startup probe has not passed.", c.Name, age(c.State.Running.StartedAt.Time))
		}
		if last := c.LastTerminationState.Terminated; last != nil {
			w.say("  Before that it ended %s ago: %s; it has been restarted %d times.", age(last.FinishedAt.Time), ended(last), c.RestartCount)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue && c.Message != "" {
			w.say("It is not ready: %s.", c.Message)
		}
	}
}

func ended(t *corev1.ContainerStateTerminated) string {
	return fmt.Sprintf("%s, exit code %d%s", t.Reason, t.ExitCode, after(", ", strings.TrimSpace(t.Message)))
}

// after is text behind a separator, or nothing.
func after(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + strings.TrimSuffix(text, ".")
}

// deployment says what a deployment waits for, down to its pods.
func (w *why) deployment(ctx context.Context, at object) error {
	d, err := client.Deployments.Get(ctx, w, at.namespace, at.name)
	if err != nil {
		return err
	}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	w.say("deployment %s/%s wants %d pods: %d are of the newest version, %d are available.",
		d.Namespace, d.Name, want, d.Status.UpdatedReplicas, d.Status.AvailableReplicas)
	if d.Status.ObservedGeneration < d.Generation {
		w.say("Its newest specification has not been looked at yet.")
	}
	for _, c := range d.Status.Conditions {
		good := c.Status == corev1.ConditionTrue
		if c.Type == appsv1.DeploymentReplicaFailure {
			good = !good
		}
		if !good {
			w.say("%s: %s.", c.Reason, strings.TrimSuffix(c.Message, "."))
		}
	}
	if err := w.badPods(ctx, d); err != nil {
		return err
	}
	return w.events(ctx, at)
}

// badPods explains the first pod of a deployment that is not ready; one that leaves
// explains nothing, unless there are no others.
func (w *why) badPods(ctx context.Context, d *appsv1.Deployment) error {
	pods, _, err := client.Pods.List(ctx, w, d.Namespace, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return err
	}
	bad := slices.DeleteFunc(pods, ready)
	if len(bad) == 0 {
		return nil
	}
	if staying := slices.DeleteFunc(slices.Clone(bad), func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil }); len(staying) > 0 {
		bad = staying
	}
	w.say("%d of its pods are not ready. The first of them:", len(bad))
	return w.pod(ctx, object{kind: "pod", namespace: bad[0].Namespace, name: bad[0].Name})
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// node says what is wrong with a node.
func (w *why) node(ctx context.Context, at object) error {
	n, err := client.Nodes.Get(ctx, w, "", at.name)
	if err != nil {
		return err
	}
	if n.Spec.Unschedulable {
		w.say("node %s is cordoned: no new pods go there. kubectl uncordon %s changes that.", n.Name, n.Name)
	}
	for _, c := range n.Status.Conditions {
		if good := c.Type == corev1.NodeReady; (c.Status == corev1.ConditionTrue) != good {
			w.say("node %s has %s=%s since %s: %s.", n.Name, c.Type, c.Status, age(c.LastTransitionTime.Time), c.Message)
		}
	}
	for _, t := range n.Spec.Taints {
		w.say("node %s has the taint %s.", n.Name, t.ToString())
	}
	at.namespace = ""
	return w.events(ctx, at)
}

// events shows what has been said about an object lately, newest last.
func (w *why) events(ctx context.Context, at object) error {
	selector := fields.Set{"involvedObject.name": at.name}
	if at.namespace != "" {
		selector["involvedObject.namespace"] = at.namespace
	}
	list, _, err := client.Events.List(ctx, w, at.namespace, metav1.ListOptions{FieldSelector: selector.String()})
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(e *corev1.Event) bool { return !strings.EqualFold(e.InvolvedObject.Kind, at.kind) })
	slices.SortStableFunc(list, func(a, b *corev1.Event) int { return told(a).Compare(told(b)) })
	list = list[max(0, len(list)-maxEvents):]
	if len(list) > 0 {
		w.say("Last events:")
	}
	for _, e := range list {
		times := ""
		if e.Count > 1 {
			times = fmt.Sprintf(" (%d times)", e.Count)
		}
		w.say("  %s ago  %s: %s%s", age(told(e)), e.Reason, strings.TrimSpace(e.Message), times)
	}
	return nil
}

func told(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}
