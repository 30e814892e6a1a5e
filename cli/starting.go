package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// failureWait is how long a node's failures to make a container ready may go on until
// nobody believes in it any more: the node tries again for ever, docker not at all.
const failureWait = 7 * time.Second

// starting is a container that has been asked for and does not run yet. After a moment
// it says what is the matter, and when that will not change it says so.
type starting struct {
	*server
	pod *corev1.Pod
	out io.Writer
	// moment fires once, when it has not run for so long that somebody wonders.
	moment <-chan time.Time
	// events are what is said of it from then on.
	events <-chan *corev1.Event
	// late fires when failure has gone on for too long.
	late    <-chan time.Time
	failure string
	told    string
	stop    context.CancelFunc
}

// start begins to wait for a container; end ends it.
func (s *server) starting(pod *corev1.Pod, out io.Writer) *starting {
	return &starting{server: s, pod: pod, out: out, moment: time.After(doubtWait), stop: func() {}}
}

// end is to be called when it runs, or when nobody waits any more.
func (g *starting) end() {
	g.stop()
	g.moment, g.events, g.late = nil, nil, nil
}

// see takes the pod as it is now.
func (g *starting) see(pod *corev1.Pod, state podState) {
	if g.pod = pod; state.started || state.ended {
		g.end()
	}
	if boxed(pod) { // what failed until then has passed
		g.failure, g.late = "", nil
	}
}

// boxed says whether the pod has its sandbox, with network and volumes.
func boxed(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// wonder says what is the matter, as far as it is known, and listens for more.
func (g *starting) wonder(ctx context.Context) {
	g.moment = nil
	if text, err := g.reason(ctx); err == nil && text != "" {
		g.tell(text)
	}
	ctx, g.stop = context.WithCancel(ctx)
	w, err := client.Events.Watch(ctx, g, g.pod.Namespace, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(g.pod.UID)).String(),
	})
	if err != nil {
		return // we may not see them
	}
	events := make(chan *corev1.Event)
	g.events = events
	go func() {
		defer w.Stop()
		for e := range w.ResultChan() {
			said, ok := e.Object.(*corev1.Event)
			if !ok {
				continue
			}
			select {
			case events <- said:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// hear takes an event.
func (g *starting) hear(e *corev1.Event) {
	text, fatal := failureIn(e)
	if text == "" || boxed(g.pod) {
		return
	}
	g.tell(text)
	if !fatal {
		return
	}
	if g.failure = text; g.late == nil {
		g.late = time.After(failureWait)
	}
}

// failureIn is what an event says that keeps a container from starting, and whether it
// will not pass by waiting. What the scheduler and containers say is in the pod's status.
func failureIn(e *corev1.Event) (text string, fatal bool) {
	if e.Type != corev1.EventTypeWarning {
		return "", false
	}
	switch e.Reason {
	case "FailedCreatePodSandBox", "NetworkNotReady", "FailedMount", "FailedMapVolume", "FailedPrepareDynamicResources", "FailedCreatePodContainer":
		return plainly(e.Message), true
	case "FailedScheduling", "Failed", "BackOff", "Unhealthy", "ErrImageNeverPull", "InspectFailed", "FailedToRetrieveImagePullSecret":
		return "", false
	}
	return e.Reason + ": " + plainly(e.Message), false
}

// plainly is a node's sentence without the words of the protocol by which it has heard it.
func plainly(message string) string {
	text := strings.TrimSpace(message)
	before, after, ok := strings.Cut(text, "rpc error: code = ")
	if !ok {
		return text
	}
	if _, desc, ok := strings.Cut(after, " desc = "); ok {
		return before + desc
	}
	return text
}

// tell says it once.
func (g *starting) tell(text string) {
	if text == g.told {
		return
	}
	g.told = text
	fmt.Fprintf(g.out, "sampan: %s does not run yet: %s\n", g.pod.Name, text)
}

// reason is what is known of why a container does not run, beside its status and events.
func (g *starting) reason(ctx context.Context) (string, error) {
	if g.pod.Spec.NodeName == "" {
		if said := look(g.pod).doomed; said != "" {
			return g.unplaced(ctx, g.pod, said), nil
		}
		return "the scheduler has not looked at it yet", nil
	}
	if text := g.unready(ctx, g.pod.Spec.NodeName); text != "" {
		return text, nil
	}
	marks, err := g.records.Timeline(ctx, string(g.pod.UID))
	for _, m := range marks {
		if m.Name == explain.Pulling && m.End.IsZero() {
			return fmt.Sprintf("its image is on its way since %s: %s", age(m.Start), m.Detail), nil
		}
	}
	return "", err
}

// unready says what keeps a node from being ready, "" when it is, or is unknown.
func (s *server) unready(ctx context.Context, name string) string {
	node, err := client.Nodes.Get(ctx, s, "", name)
	if err != nil {
		return ""
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return fmt.Sprintf("node %s is not ready: %s", node.Name, plainly(c.Message))
		}
	}
	return ""
}

// unplaced is why no node takes a pod: what the scheduler says, and what is the matter
// with the one node that it is for.
func (s *server) unplaced(ctx context.Context, pod *corev1.Pod, said string) string {
	said, _, _ = strings.Cut(said, " preemption: ")
	if name := onlyNode(pod); name != "" {
		return said + after(" ", s.unready(ctx, name))
	}
	return said
}

// onlyNode is the node that onNode has kept a pod on.
func onlyNode(pod *corev1.Pod) string {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}
