package cli

import (
	"context"
	"fmt"
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
	all, everywhere, namespace := false, false, ""
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
			keep, err := psFilters(show.filters)
			if err != nil {
				return err
			}
			pods, _, err := client.Pods.List(cmd.Context(), server, namespace, metav1.ListOptions{LabelSelector: runLabel})
			if err != nil {
				return unanswered(err)
			}
			pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !keep(p) })
			if !all && !show.byStatus() {
				pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return look(p).ended || isGated(p) })
			}
			slices.SortStableFunc(pods, func(a, b *corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
			return show.print(cmd.OutOrStdout(), pods)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended or not begun")
	cmd.Flags().BoolVarP(&show.quiet, "quiet", "q", false, "names only")
	cmd.Flags().BoolVar(&show.whole, "no-trunc", false, "commands in full")
	cmd.Flags().StringVar(&show.format, "format", "table", "table, json, or a template such as {{.Name}} {{.Status}}")
	cmd.Flags().StringArrayVarP(&show.filters, "filter", "f", nil, "name=TEXT, status=running|exited|created|restarting, label=NAME[=VALUE], ancestor=IMAGE, exited=CODE or health=healthy|unhealthy|starting|none")
	cmd.Flags().BoolVarP(&everywhere, "all-namespaces", "A", false, "of all namespaces")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pods (default: that of the kubeconfig)")
	return cmd
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
	case s.running:
		return "Up " + age(c.State.Running.StartedAt.Time) + healthWords(p)
	case isGated(p):
		return "Created"
	case s.ended && c.State.Terminated != nil:
		return fmt.Sprintf("Exited (%d) %s ago", s.code, age(c.State.Terminated.FinishedAt.Time))
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

// published are the ports of the node that lead to the container.
func published(p *corev1.Pod) string {
	var all []string
	for _, port := range p.Spec.Containers[0].Ports {
		if port.HostPort == 0 {
			continue
		}
		ip := port.HostIP
		if ip != "" {
			ip += ":"
		}
		all = append(all, fmt.Sprintf("%s%d->%d/%s", ip, port.HostPort, port.ContainerPort, strings.ToLower(string(port.Protocol))))
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
		return nil, &missing{name, err}
	}
	return pod, unanswered(err)
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
