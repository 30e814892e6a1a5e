package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

func psCommand(s *Settings) *cobra.Command {
	var show psFormat
	all, everywhere, latest, namespace := false, false, false, ""
	cmd := &cobra.Command{
		Use: "ps", Short: "List the containers of sampan run", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			if namespace == "" && !everywhere {
				namespace = server.namespace
			}
			pods, _, err := client.Pods.List(cmd.Context(), server, namespace, metav1.ListOptions{LabelSelector: runLabel})
			if err != nil {
				return unanswered(err)
			}
			keep, err := psFilters(show.filters, pods)
			if err != nil {
				return err
			}
			pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !keep(p) })
			if latest {
				show.last = 1
			}
			if !all && show.last == 0 && !show.byStatus() {
				pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return look(p).ended || isGated(p) })
			}
			slices.SortStableFunc(pods, func(a, b *corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
			if show.last > 0 {
				pods = pods[:min(show.last, len(pods))]
			}
			if show.wantsSizes() {
				show.written = s.written()
			}
			return show.print(cmd.OutOrStdout(), pods)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended or not begun")
	cmd.Flags().BoolVarP(&show.quiet, "quiet", "q", false, "names only")
	cmd.Flags().BoolVar(&show.whole, "no-trunc", false, "commands in full")
	cmd.Flags().StringVar(&show.format, "format", "table", "table, json, or a template such as {{.Name}} {{.Status}}")
	cmd.Flags().StringArrayVarP(&show.filters, "filter", "f", nil, "name=REGEXP, status=running|exited|created|restarting|paused, label=NAME[=VALUE], ancestor=IMAGE, exited=CODE, health=healthy|unhealthy|starting|none, id=ID, network=host|bridge|none, volume=NAME|PATH, publish=PORT, expose=PORT, before=CONTAINER or since=CONTAINER")
	cmd.Flags().BoolVarP(&latest, "latest", "l", false, "the newest alone, however it is")
	cmd.Flags().IntVar(&show.last, "last", 0, "so many of the newest, however they are")
	cmd.Flags().BoolVarP(&show.sizes, "size", "s", false, "what they have written beside their volumes, too")
	cmd.Flags().BoolVarP(&everywhere, "all-namespaces", "A", false, "of all namespaces")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pods (default: that of the kubeconfig)")
	return cmd
}

// written says what a container on this machine has written to its own layer.
func (s *Settings) written() func(*corev1.Pod) string {
	store, failed := s.images()
	return func(p *corev1.Pod) string {
		id, ok := snapshotOf(p)
		if failed != nil || !ok {
			return "-"
		}
		u, err := store.SnapshotUsage(id)
		if err != nil {
			return "-"
		}
		return size(u.Bytes)
	}
}

// containerStatus is how a container is, for a person.
func containerStatus(p *corev1.Pod) string {
	s := look(p)
	var c corev1.ContainerStatus
	if len(p.Status.ContainerStatuses) == 1 {
		c = p.Status.ContainerStatuses[0]
	}
	switch {
	case p.DeletionTimestamp != nil && !s.ended:
		return "Stopping"
	case s.running && isPaused(p):
		return "Up " + age(c.State.Running.StartedAt.Time) + " (Paused)"
	case s.running:
		return "Up " + age(c.State.Running.StartedAt.Time) + healthWords(p)
	case isGated(p):
		return "Created"
	case s.ended && lastEnd(c) != nil:
		return fmt.Sprintf("Exited (%d) %s ago", s.code, age(lastEnd(c).FinishedAt.Time))
	case s.doomed != "":
		reason, _, _ := strings.Cut(s.doomed, ":")
		return reason
	case c.State.Waiting != nil && s.restarts > 0:
		return fmt.Sprintf("Restarting (%d times)", s.restarts)
	case c.State.Terminated != nil:
		return fmt.Sprintf("Restarting (%d)", c.State.Terminated.ExitCode)
	}
	return "Starting"
}

// lastEnd is how a container has ended most lately, nil for one that never has.
func lastEnd(c corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if c.State.Terminated != nil {
		return c.State.Terminated
	}
	return c.LastTerminationState.Terminated
}

// anyAddress is where a port is published that names no address.
const anyAddress = "0.0.0.0"

// published are the ports of the node that lead to the container.
func published(p *corev1.Pod) string {
	var all []string
	for _, port := range p.Spec.Containers[0].Ports {
		if port.HostPort == 0 {
			continue
		}
		from := net.JoinHostPort(cmp.Or(port.HostIP, anyAddress), strconv.Itoa(int(port.HostPort)))
		all = append(all, fmt.Sprintf("%s->%d/%s", from, port.ContainerPort, strings.ToLower(string(port.Protocol))))
	}
	return strings.Join(all, ", ")
}

// named finds the pod that a person calls by its name.
func (s *server) named(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	if namespace == "" {
		namespace = s.namespace
	}
	pod, err := client.Pods.Get(ctx, s, namespace, strings.TrimPrefix(name, "pod/"))
	if apierrors.IsNotFound(err) {
		pod, err = s.otherwise(ctx, namespace, name, err)
	}
	return pod, unanswered(err)
}

// leastID is how many digits of an ID are enough to be meant as one.
const leastID = 4

// otherwise finds a container of sampan run by a name that no pod can have, or by its ID
// or how that begins.
func (s *server) otherwise(ctx context.Context, namespace, name string, cause error) (*corev1.Pod, error) {
	pods, _, err := client.Pods.List(ctx, s, namespace, metav1.ListOptions{LabelSelector: runLabel})
	if err != nil {
		return nil, err
	}
	var found []*corev1.Pod
	for _, p := range pods {
		if p.Name == podsName(name) || len(name) >= leastID && (strings.HasPrefix(idOf(p), digits(name)) || strings.HasPrefix(string(p.UID), name)) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return nil, &missing{name, cause}
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%d containers have an ID that begins with %q", len(found), name)
}

// missing says of a container what the API server says of its pod, in words for
// whoever has never made a pod.
type missing struct {
	name  string
	cause error
}

// Error says where names are to be found.
func (m *missing) Error() string {
	return fmt.Sprintf("container %q is not found: sampan ps -a lists those that there are", m.name)
}

// Unwrap is the API server's own error.
func (m *missing) Unwrap() error { return m.cause }

// podOf connects, and finds the pod that a person calls by its name.
func (s *Settings) podOf(ctx context.Context, namespace, name string) (*server, *corev1.Pod, error) {
	server, err := s.connect()
	if err != nil {
		return nil, nil, err
	}
	pod, err := server.named(ctx, namespace, name)
	return server, pod, err
}

// own is named for verbs that end a container: only those of sampan run are theirs.
func (s *server) own(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod, err := s.named(ctx, namespace, name)
	if err == nil && pod.Labels[runLabel] == "" {
		return nil, fmt.Errorf("pod %q was not made by sampan run: kubectl delete pod %s ends it", pod.Name, pod.Name)
	}
	return pod, err
}

// at is where the streams and the log of a pod are.
func at(pod *corev1.Pod) podName {
	return podName{namespace: pod.Namespace, name: pod.Name, container: mainContainer(pod)}
}

// mainContainer is the container that is meant when none is named, as kubectl
// chooses it.
func mainContainer(pod *corev1.Pod) string {
	const annotation = "kubectl.kubernetes.io/default-container"
	if name := pod.Annotations[annotation]; name != "" {
		return name
	}
	return pod.Spec.Containers[0].Name
}

// parseSince reads a flag's 10m, a time, or seconds since 1970.
func parseSince(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n < 1<<40 {
		return time.Unix(0, int64(n*float64(time.Second))), nil
	}
	return time.Time{}, fmt.Errorf("--%s %q: want a duration such as 10m, or a time such as 2006-01-02T15:04:05Z", flag, text)
}
