package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
)

func eventsCommand(s *Settings) *cobra.Command {
	var filters []string
	since, until, format, namespace, everywhere := "", "", "", "", false
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happens to containers and networks, as it happens", Args: cobra.NoArgs,
		Long: `Show what happens to containers of sampan run, and to networks, as it happens, until Ctrl-C or --until.
--since begins with what has happened to those that are there; of those that have been
removed nothing is known any more. What happens to other objects is shown by
sampan kubectl get events --watch.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			from, err := parseSince("since", since, now)
			if err != nil {
				return err
			}
			to, err := parseSince("until", until, now)
			if err != nil {
				return err
			}
			keep, err := eventFilters(filters)
			if err != nil {
				return err
			}
			server, err := s.connect()
			if err != nil {
				return err
			}
			if namespace == "" && !everywhere {
				namespace = server.namespace
			}
			w := &eventWriter{out: cmd.OutOrStdout(), format: format, keep: keep, since: from, until: to, primed: since != "", known: map[types.UID]*pastOf{}}
			return w.follow(cmd.Context(), server, namespace)
		},
	}
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "container=NAME, event=NAME, image=IMAGE, label=NAME[=VALUE], network=NAME or type=container|network")
	cmd.Flags().StringVar(&since, "since", "", "what has happened since then, too: 10m, or a time")
	cmd.Flags().StringVar(&until, "until", "", "until then: a time, or 10m for ten minutes ago")
	cmd.Flags().StringVar(&format, "format", "", "json, or a template such as {{.Action}} {{.Actor.Attributes.name}}")
	cmd.Flags().BoolVarP(&everywhere, "all-namespaces", "A", false, "of all namespaces")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pods (default: that of the kubeconfig)")
	return cmd
}

// happening is one event in docker's words and form.
type happening struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	Type   string
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`

	at time.Time
}

// String is docker's line of it.
func (h happening) String() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(h.Actor.Attributes)) {
		list = append(list, name+"="+h.Actor.Attributes[name])
	}
	return fmt.Sprintf("%s %s %s %s (%s)", h.at.Format("2006-01-02T15:04:05.000000000Z07:00"), h.Type, h.Action, h.Actor.ID, strings.Join(list, ", "))
}

// happened is something that has happened to a container, with more to say of it.
func happened(pod *corev1.Pod, at time.Time, action string, more ...string) happening {
	h := happening{Status: action, ID: idOf(pod), From: pod.Spec.Containers[0].Image, Type: "container", Action: action,
		Scope: "local", Time: at.Unix(), TimeNano: at.UnixNano(), at: at}
	h.Actor.ID, h.Actor.Attributes = h.ID, map[string]string{"image": h.From, "name": pod.Name}
	for label, value := range containerLabels(pod) {
		if !strings.Contains(label, "sampan.dev/") { // ours, not the person's
			h.Actor.Attributes[label] = value
		}
	}
	for i := 0; i+1 < len(more); i += 2 {
		h.Actor.Attributes[more[i]] = more[i+1]
	}
	return h
}

// onNet is a container's coming to a network, or its leaving it.
func onNet(pod *corev1.Pod, at time.Time, action, network string) happening {
	h := happened(pod, at, action)
	h.Status, h.ID, h.From, h.Type = "", "", "", "network"
	h.Actor.ID, h.Actor.Attributes = network, map[string]string{"container": idOf(pod), "name": network, "type": bridgeNetwork}
	return h
}

// pastOf is what has been told of one container.
type pastOf struct {
	pod     *corev1.Pod
	told    map[string]bool
	paused  bool
	health  string
	network []string
}

// next is what has happened to a container, as far as that is not told yet; what bears
// no time of its own has happened now.
func (p *pastOf) next(pod *corev1.Pod, now time.Time) []happening {
	var all []happening
	add := func(at metav1.Time, action string, more ...string) {
		if key := action + at.UTC().String(); !at.IsZero() && !p.told[key] {
			p.told[key] = true
			all = append(all, happened(pod, at.Time, action, more...))
		}
	}
	first := p.pod == nil
	p.pod = pod
	add(pod.CreationTimestamp, "create")
	if len(pod.Status.ContainerStatuses) == 1 {
		c := pod.Status.ContainerStatuses[0]
		for _, t := range []*corev1.ContainerStateTerminated{c.LastTerminationState.Terminated, c.State.Terminated} {
			if t == nil {
				continue
			}
			add(t.StartedAt, "start")
			if t.Reason == "OOMKilled" {
				add(t.FinishedAt, "oom")
			}
			add(t.FinishedAt, "die", "exitCode", fmt.Sprint(t.ExitCode))
		}
		if c.State.Running != nil {
			add(c.State.Running.StartedAt, "start")
		}
		if t := lastEnd(c); t != nil && pod.Status.Reason == "DeadlineExceeded" { // as stop has it end
			add(t.FinishedAt, "stop")
		}
	}
	if is := isPaused(pod); is != p.paused {
		if p.paused = is; is {
			all = append(all, happened(pod, now, "pause"))
		} else if look(pod).running {
			all = append(all, happened(pod, now, "unpause"))
		}
	}
	if health := healthOf(pod, now); health != p.health {
		if p.health = health; health == healthy || health == unhealthy {
			all = append(all, happened(pod, now, "health_status: "+health))
		}
	}
	on := networksOfPod(pod)
	for _, name := range on {
		if !first && !slices.Contains(p.network, name) {
			all = append(all, onNet(pod, now, "connect", name))
		}
	}
	for _, name := range p.network {
		if !slices.Contains(on, name) {
			all = append(all, onNet(pod, now, "disconnect", name))
		}
	}
	p.network = on
	return all
}

// eventWriter shows what happens.
type eventWriter struct {
	out          io.Writer
	format       string
	keep         func(happening) bool
	since, until time.Time
	// primed: what has happened until now has been told, or is to be.
	primed bool
	known  map[types.UID]*pastOf
	// networks are those that there are, by their UIDs.
	networks map[string]*corev1.Service
}

// errUntil ends it all.
var errUntil = errors.New("the rest is later than --until")

// follow shows everything until the context ends or --until has come. A watch that
// breaks is begun anew, and what has happened meanwhile told.
func (w *eventWriter) follow(ctx context.Context, s *server, namespace string) error {
	if !w.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, w.until, errUntil)
		defer cancel()
	}
	for breaks := 0; breaks < maxBreaks; breaks++ {
		// Its own deadline is not the question's: what is past --until can be asked for too.
		pods, rev, err := client.Pods.List(context.WithoutCancel(ctx), s, namespace, metav1.ListOptions{LabelSelector: runLabel})
		if err != nil {
			return unanswered(err)
		}
		nets, past, err := w.watchNetworks(ctx, s, namespace)
		if err != nil {
			return err
		}
		if err := w.all(pods, past...); err != nil {
			nets.Stop()
			return err
		}
		stream, err := client.Pods.Watch(ctx, s, namespace, metav1.ListOptions{LabelSelector: runLabel, ResourceVersion: rev})
		if err == nil {
			err = w.read(ctx, stream, nets, &breaks)
			stream.Stop()
		}
		nets.Stop()
		if ctx.Err() != nil {
			return nil // Ctrl-C, or --until
		}
		if err != nil {
			return err
		}
	}
	return errors.New("the API server ends every watch")
}

// read tells what the watches of pods and networks bring, until one of them ends.
func (w *eventWriter) read(ctx context.Context, pods, networks watch.Interface, breaks *int) error {
	for {
		var e watch.Event
		var ok bool
		var err error
		select {
		case e, ok = <-pods.ResultChan():
			if ok {
				ok, err = w.pod(e)
			}
		case e, ok = <-networks.ResultChan():
			if ok {
				err = w.network(e)
			}
		}
		if !ok || err != nil || ctx.Err() != nil {
			return err
		}
		*breaks = 0
	}
}

// pod tells what has just happened to one; it is false when that was no pod.
func (w *eventWriter) pod(e watch.Event) (bool, error) {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return false, nil
	}
	err := w.tell(w.of(pod).next(pod, time.Now()))
	if err == nil && e.Type == watch.Deleted {
		err = w.gone(pod)
	}
	return true, err
}

func (w *eventWriter) of(pod *corev1.Pod) *pastOf {
	if w.known[pod.UID] == nil {
		w.known[pod.UID] = &pastOf{told: map[string]bool{}, health: healthNone}
	}
	return w.known[pod.UID]
}

func (w *eventWriter) gone(pod *corev1.Pod) error {
	delete(w.known, pod.UID)
	return w.tell([]happening{happened(pod, time.Now(), "destroy")})
}

// all takes a list: the past of who is there, beside that of others, and the end of who is
// not any more.
func (w *eventWriter) all(pods []*corev1.Pod, past ...happening) error {
	now := time.Now()
	here := map[types.UID]bool{}
	for _, pod := range pods {
		here[pod.UID] = true
		past = append(past, w.of(pod).next(pod, now)...)
	}
	if !w.primed {
		w.primed = true
		return nil
	}
	if err := w.tell(past); err != nil {
		return err
	}
	for uid, p := range w.known {
		if !here[uid] {
			if err := w.gone(p.pod); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell prints what falls between --since and --until, in the order of time.
func (w *eventWriter) tell(all []happening) error {
	slices.SortStableFunc(all, func(a, b happening) int { return cmp.Compare(a.TimeNano, b.TimeNano) })
	for _, h := range all {
		// Pods' times are whole seconds.
		if h.at.Before(w.since.Truncate(time.Second)) || !w.until.IsZero() && h.at.After(w.until) || !w.keep(h) {
			continue
		}
		var err error
		if w.format == "" {
			_, err = fmt.Fprintln(w.out, h)
		} else {
			err = w.template(h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// template prints one as --format says. What an event has not is nothing.
func (w *eventWriter) template(h happening) error {
	return templatedAs(w.out, w.format, []any{h}, "missingkey=zero")
}

// eventFilters reads --filter: of one name any must fit, of different ones all.
func eventFilters(texts []string) (func(happening) bool, error) {
	byName := filters[happening]{}
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		if name == "type" && value != "container" && value != "network" {
			return nil, fmt.Errorf("--filter %q: what happens to containers and networks is told, and to nothing else", text)
		}
		fits := eventFilter(name, value)
		if fits == nil || value == "" {
			return nil, fmt.Errorf("--filter %q: want container=, event=, image=, label=, network=, scope=local or type=", text)
		}
		byName[name] = append(byName[name], fits)
	}
	return byName.fit, nil
}

// eventFilter is one of them, nil for none that there is.
func eventFilter(name, value string) func(happening) bool {
	attribute := func(h happening, name string) string { return h.Actor.Attributes[name] }
	switch name {
	case "container":
		return func(h happening) bool {
			return h.Type == "container" && (attribute(h, "name") == value || len(value) >= leastID && strings.HasPrefix(h.ID, value))
		}
	case "event":
		return func(h happening) bool {
			action, _, _ := strings.Cut(h.Action, ":")
			return h.Action == value || action == value
		}
	case "image":
		return func(h happening) bool { return h.Type == "container" && h.From == value }
	case "label":
		return func(h happening) bool {
			label, want, exact := strings.Cut(value, "=")
			have, ok := h.Actor.Attributes[label]
			return ok && (!exact || have == want)
		}
	case "network":
		return func(h happening) bool {
			return h.Type == "network" && (attribute(h, "name") == value || len(value) >= leastID && strings.HasPrefix(h.Actor.ID, value))
		}
	case "type":
		return func(h happening) bool { return h.Type == value }
	case "scope":
		return func(h happening) bool { return h.Scope == value }
	}
	return nil
}
