package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// endSlack is how much longer than its grace period a container may take to end.
const endSlack = 30 * time.Second

// deadlinePatch ends a pod without deleting it: its log and its exit code stay.
const deadlinePatch = `{"spec":{"activeDeadlineSeconds":1}}`

func stopCommand(p Program, s *Settings) *cobra.Command {
	grace, namespace := int64(-1), ""
	cmd := &cobra.Command{
		Use: "stop NAME...", Short: "End containers, and keep what they have printed", Args: cobra.MinimumNArgs(1),
		Long: `Ask containers to end, and kill them when they have not after --time, or else their
--stop-timeout. What they printed and their exit codes stay until sampan rm.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			e := &ending{server: server, program: p, settings: s, grace: grace, out: cmd.OutOrStdout()}
			return each(args, func(name string) error {
				pod, err := server.own(cmd.Context(), namespace, name)
				if err != nil {
					return err
				}
				return e.stop(cmd.Context(), pod)
			})
		},
	}
	cmd.Flags().Int64VarP(&grace, "time", "t", -1, "seconds until it is killed, at most its --stop-timeout (default: that)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pods (default: that of the kubeconfig)")
	return cmd
}

// each does something for every name, and tells all that went wrong.
func each(names []string, do func(name string) error) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, do(name))
	}
	return errors.Join(errs...)
}

// ending ends containers.
type ending struct {
	*server
	program  Program
	settings *Settings
	grace    int64
	out      io.Writer
}

// stop ends one, and waits until it has.
func (e *ending) stop(ctx context.Context, pod *corev1.Pod) error {
	if !look(pod).ended {
		if err := e.end(ctx, pod); err != nil {
			return fmt.Errorf("stop %s: %w", pod.Name, err)
		}
	}
	_, err := fmt.Fprintln(e.out, pod.Name)
	return err
}

func (e *ending) end(ctx context.Context, pod *corev1.Pod) error {
	limit := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	pods := followPod(ctx, e, pod)
	defer pods.stop()
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name)
	if _, err := client.Pods.Patch(ctx, e, at, client.Patch{Type: types.MergePatchType, Data: []byte(deadlinePatch)}); err != nil {
		return err
	}
	late := time.After(limit + endSlack)
	var kill <-chan time.Time
	if own := time.Duration(e.grace) * time.Second; e.grace >= 0 && own < limit {
		kill = time.After(own)
	}
	for {
		select {
		case c, ok := <-pods.changes:
			if !ok {
				return pods.err
			}
			if c.gone || look(c.pod).ended {
				return nil
			}
		case <-kill:
			if err := e.kill(ctx, pod); err != nil {
				return err
			}
		case <-late:
			return fmt.Errorf("it has not ended after %s", limit+endSlack)
		}
	}
}

// kill ends the container's process now, where it can be reached.
func (e *ending) kill(ctx context.Context, pod *corev1.Pod) error {
	err := errors.ErrUnsupported
	if e.program.Signal != nil {
		err = e.program.Signal(ctx, *e.settings, string(pod.UID), syscall.SIGKILL)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return errors.New("its process is not on this machine, or not ours: sampan rm -f kills it everywhere")
	}
	return err
}

func rmCommand(s *Settings) *cobra.Command {
	force, namespace := false, ""
	cmd := &cobra.Command{
		Use: "rm NAME...", Short: "Remove containers that have ended", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			return each(args, func(name string) error {
				pod, err := server.own(cmd.Context(), namespace, name)
				if err == nil {
					err = server.rm(cmd.Context(), pod, force)
				}
				if force && apierrors.IsNotFound(err) {
					return nil
				}
				if err == nil {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill those that run; it is no error when there is none")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pods (default: that of the kubeconfig)")
	return cmd
}

// rm deletes a pod, and waits until its name is free.
func (s *server) rm(ctx context.Context, pod *corev1.Pod, force bool) error {
	var opts metav1.DeleteOptions
	if !look(pod).ended {
		if !force {
			return fmt.Errorf("%s runs: sampan stop %s first, or sampan rm -f %s", pod.Name, pod.Name, pod.Name)
		}
		// Not 0: that would forget the pod before its processes have ended.
		now := int64(1)
		opts.GracePeriodSeconds = &now
	}
	pods := followPod(ctx, s, pod)
	defer pods.stop()
	if err := client.Pods.Delete(ctx, s, pod.Namespace, pod.Name, opts); err != nil {
		return err
	}
	return pods.awaitEnd(removeWait + endSlack)
}
