package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// startWait is how long start waits until a container runs.
const startWait = time.Minute

func startCommand(s *Settings) *cobra.Command {
	return ownVerb{
		use: "start", short: "Begin containers that sampan create has made, or anew those that have ended",
		long: `Begin containers that sampan create has made, and anew those that have ended, as they
were asked for: the same image, command, ports and volumes. What those wrote beside
their volumes is not kept, nor what they printed.`,
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			return server.again(cmd.Context(), pod, cmd.OutOrStdout())
		},
	}.command(s)
}

func restartCommand(p Program, s *Settings) *cobra.Command {
	grace := int64(-1)
	cmd := ownVerb{
		use: "restart", short: "End containers, and begin them anew",
		long: `End containers as sampan stop does, and begin them anew as sampan start does.`,
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			e := &ending{server: server, program: p, settings: s, grace: grace, out: io.Discard}
			if err := e.stop(cmd.Context(), pod); err != nil {
				return err
			}
			now, err := server.own(cmd.Context(), pod.Namespace, pod.Name)
			if apierrors.IsNotFound(err) { // one of run --rm goes when it ends
				return server.renew(cmd.Context(), pod, cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return server.again(cmd.Context(), now, cmd.OutOrStdout())
		},
	}.command(s)
	graceFlag(cmd, &grace)
	return cmd
}

// again puts a new pod in the place of one that has ended.
func (s *server) again(ctx context.Context, old *corev1.Pod, out io.Writer) error {
	if isGated(old) {
		return s.ungate(ctx, old, out)
	}
	if !look(old).ended {
		_, err := fmt.Fprintln(out, old.Name) // it runs: that is what was wanted
		return err
	}
	if err := s.rm(ctx, old, false); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("start %s: %w", old.Name, err)
	}
	return s.renew(ctx, old, out)
}

// renew makes the pod that another was, and waits until it runs.
func (s *server) renew(ctx context.Context, old *corev1.Pod, out io.Writer) error {
	made, err := client.Pods.Create(ctx, s, afresh(old))
	if err != nil {
		return fmt.Errorf("start %s: %w", old.Name, err)
	}
	return s.started(ctx, made, out)
}

// started waits until a pod runs, and prints its name.
func (s *server) started(ctx context.Context, made *corev1.Pod, out io.Writer) error {
	pods := followPod(ctx, s, made)
	defer pods.stop()
	late := time.After(startWait)
	for state := look(made); !state.running && !state.ended; {
		select {
		case c, ok := <-pods.changes:
			if !ok {
				return pods.err
			}
			state = look(c.pod)
			if c.gone {
				return fmt.Errorf("start %s: somebody has removed it", made.Name)
			}
			if state.doomed != "" && !state.mayPass {
				return fmt.Errorf("start %s: %s", made.Name, state.doomed)
			}
		case <-late:
			return fmt.Errorf("start %s: it does not run after %s; sampan why pod %s says what it waits for", made.Name, startWait, made.Name)
		}
	}
	_, err := fmt.Fprintln(out, made.Name)
	return err
}

// afresh is a pod as it was asked for, without what became of it.
func afresh(old *corev1.Pod) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: old.Name, Namespace: old.Namespace, Labels: old.Labels, Annotations: old.Annotations},
		Spec:       *old.Spec.DeepCopy(),
	}
	p.Spec.NodeName, p.Spec.ActiveDeadlineSeconds = "", nil // the second is how sampan stop ends a pod
	p.Spec.EphemeralContainers = nil
	return p
}
