package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	grace, name, signal := int64(-1), "", syscall.Signal(0)
	cmd := ownVerb{
		use: "stop", short: "End containers, and keep what they have printed",
		long: `Ask containers to end, and kill them when they have not after --time, or else their
--stop-timeout. What they printed and their exit codes stay until sampan rm.`,
		check: func() (err error) {
			if name != "" {
				signal, err = signalNumber(name)
			}
			return err
		},
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			e := &ending{server: server, program: p, settings: s, grace: grace, signal: signal, out: cmd.OutOrStdout()}
			return e.stop(cmd.Context(), pod)
		},
	}.command(s)
	graceFlag(cmd, &grace)
	cmd.Flags().StringVarP(&name, "signal", "s", "", "signal to ask with, before its own (default: its --stop-signal alone)")
	return cmd
}

func graceFlag(cmd *cobra.Command, grace *int64) {
	cmd.Flags().Int64Var(grace, "timeout", -1, "--time, by docker's newer name")
	hide(cmd.Flags(), "timeout")
	cmd.Flags().Int64VarP(grace, "time", "t", -1, "seconds until it is killed, at most its --stop-timeout (default: that)")
}

// ending ends containers.
type ending struct {
	*server
	program  Program
	settings *Settings
	grace    int64
	// signal is sent first, where it can be; 0 for none.
	signal syscall.Signal
	out    io.Writer
}

// stop ends one, and waits until it has.
func (e *ending) stop(ctx context.Context, pod *corev1.Pod) error {
	if !look(pod).ended && !isGated(pod) {
		if err := errors.Join(e.program.goOn(ctx, e.settings, e.server, pod), e.end(ctx, pod)); err != nil {
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
	if e.signal != 0 && e.program.Signal != nil && look(pod).running {
		if err := e.program.Signal(ctx, *e.settings, string(pod.UID), e.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name)
	if _, err := client.Pods.Patch(ctx, e, at, client.Patch{Type: types.MergePatchType, Data: []byte(deadlinePatch)}); err != nil {
		return err
	}
	late := time.After(limit + endSlack)
	var unable error
	var kill, hopeless <-chan time.Time
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
			err := e.kill(ctx, pod)
			if errors.Is(err, errOutOfReach) {
				// Or it has ended this moment, and whoever tells has not told yet.
				unable, hopeless = err, time.After(reachWait)
				continue
			}
			if err != nil {
				return err
			}
		case <-hopeless:
			return unable
		case <-late:
			return fmt.Errorf("it has not ended after %s", limit+endSlack)
		}
	}
}

// errOutOfReach is why a process can't be signalled from here.
var errOutOfReach = errors.New("its process is not on this machine, or not ours: sampan rm -f kills it everywhere")

// reachWait is how long the end of a process that is not to be found is waited for.
const reachWait = 10 * time.Second

// kill ends the container's process now, where it can be reached. That it has ended
// by itself is no error.
func (e *ending) kill(ctx context.Context, pod *corev1.Pod) error {
	err := errors.ErrUnsupported
	if e.program.Signal != nil {
		err = e.program.Signal(ctx, *e.settings, string(pod.UID), syscall.SIGKILL)
	}
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return errOutOfReach
	}
	return err
}

func rmCommand(s *Settings) *cobra.Command {
	force, volumes := false, false
	gone := func(err error) error {
		if force && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	cmd := ownVerb{
		use: "rm", short: "Remove containers that have ended", absent: gone,
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			err := server.rm(cmd.Context(), pod, force)
			if err == nil {
				err = s.dropKept(pod)
			}
			if err == nil && volumes {
				err = s.dropAnonymous(cmd.Context(), pod)
			}
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
			}
			return gone(err)
		},
	}.command(s)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill those that run; it is no error when there is none")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "with their volumes that nobody has given a name")
	foreignFlags(cmd, foreign{name: "link", letter: "l", why: "there are no links: containers of one network find each other by their names (sampan network create)"})
	return cmd
}

// rm deletes a pod, and waits until its name is free.
func (s *server) rm(ctx context.Context, pod *corev1.Pod, force bool) error {
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}} // no other's that has the name by now
	if !look(pod).ended && !isGated(pod) {
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
