package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// startWait is how long start waits until a container runs.
const startWait = time.Minute

// noCheckpoint is what to do instead of starting a container from a checkpoint.
const noCheckpoint = "a pod whose image holds a checkpoint goes on where that was: POST /checkpoint of a node writes one, see docs/kubelet.md"

func startCommand(p Program, s *Settings) *cobra.Command {
	join, fresh, f := false, false, runFlags{}
	var cmd *cobra.Command
	cmd = ownVerb{
		use: "start", short: "Begin containers that sampan create has made, or anew those that have ended",
		long: `Begin containers that sampan create has made, and anew those that have ended, as they
were asked for: the same image, command, ports and volumes, with what they wrote, unless
--fresh says to begin without. sampan logs shows what they printed before, too.`,
		check: func() error {
			if join || f.interactive {
				return cobra.ExactArgs(1)(cmd, cmd.Flags().Args())
			}
			return nil
		},
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			again := &renewal{server: server, settings: s, fresh: fresh, errOut: cmd.ErrOrStderr()}
			if !join && !f.interactive {
				return again.run(cmd.Context(), pod, cmd.OutOrStdout())
			}
			f.stopTimeout, f.tty, f.sigProxy = stopTime(pod), pod.Spec.Containers[0].TTY, true
			r := &running{server: server, program: p, settings: s, pod: pod, in: cmd.InOrStdin(), out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr()}
			return r.again(cmd.Context(), f, again)
		},
	}.command(s)
	cmd.Flags().BoolVarP(&join, "attach", "a", false, "join its streams; its exit code is sampan's")
	cmd.Flags().BoolVarP(&f.interactive, "interactive", "i", false, "join them, and connect standard input")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "begin anew without what they have written")
	cmd.Flags().StringVar(&f.detachKeys, "detach-keys", usualKeys, "keys that leave a terminal and let the container run on")
	foreignFlags(cmd, foreign{name: "checkpoint", word: true, why: noCheckpoint}, foreign{name: "checkpoint-dir", word: true, why: noCheckpoint})
	return cmd
}

// again begins a container and stays with it.
func (r *running) again(ctx context.Context, f runFlags, again *renewal) error {
	if err := r.choose(&f); err != nil {
		return err
	}
	f.interactive = f.interactive && r.pod.Spec.Containers[0].Stdin
	r.flags = f
	if !isGated(r.pod) && !look(r.pod).ended {
		r.joined, r.attached, r.told = true, look(r.pod).restarts, look(r.pod).restarts+1
	}
	ctx, stop := r.listen(ctx)
	defer stop()
	if !r.joined {
		made, err := again.begin(ctx, r.pod)
		if err != nil {
			return err
		}
		r.pod, r.joined = made, false
	}
	if err := r.stay(ctx); !errors.Is(err, errDetached) {
		return err
	}
	return nil
}

func restartCommand(p Program, s *Settings) *cobra.Command {
	grace, fresh, name, signal := int64(-1), false, "", syscall.Signal(0)
	cmd := ownVerb{
		use: "restart", short: "End containers, and begin them anew",
		long: `End containers as sampan stop does, and begin them anew as sampan start does.`,
		check: func() (err error) {
			if name != "" {
				signal, err = signalNumber(name)
			}
			return err
		},
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			e := &ending{server: server, program: p, settings: s, grace: grace, signal: signal, out: io.Discard}
			again := &renewal{server: server, settings: s, fresh: fresh, errOut: cmd.ErrOrStderr()}
			return again.restart(cmd.Context(), e, pod, cmd.OutOrStdout())
		},
	}.command(s)
	graceFlag(cmd, &grace)
	cmd.Flags().StringVarP(&name, "signal", "s", "", "signal to ask with, before its own (default: its --stop-signal alone)")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "begin anew without what they have written")
	return cmd
}

// restart ends a container and begins it anew. One of run --rm goes when it ends, and so
// what it has written is held before.
func (r *renewal) restart(ctx context.Context, e *ending, old *corev1.Pod, out io.Writer) error {
	if isGated(old) {
		return r.run(ctx, old, out)
	}
	next, err := r.hold(old)
	if err != nil {
		return err
	}
	if err := e.stop(ctx, old); err != nil {
		return errors.Join(err, r.letGo(old))
	}
	made, err := r.replace(ctx, old, next)
	if err != nil {
		return err
	}
	return r.started(ctx, made, out)
}

// run has a container begin, unless it runs.
func (r *renewal) run(ctx context.Context, old *corev1.Pod, out io.Writer) error {
	if !isGated(old) && !look(old).ended {
		_, err := fmt.Fprintln(out, old.Name) // it runs: that is what was wanted
		return err
	}
	made, err := r.begin(ctx, old)
	if err != nil {
		return err
	}
	return r.started(ctx, made, out)
}

// begin lets one begin that sampan create has made, or puts a new pod in the place of
// one that has ended.
func (r *renewal) begin(ctx context.Context, old *corev1.Pod) (*corev1.Pod, error) {
	if err := r.portsFreeHere(ctx, old); err != nil {
		return nil, fmt.Errorf("start %s: %w", old.Name, err)
	}
	if isGated(old) {
		return r.ungate(ctx, old)
	}
	next, err := r.hold(old)
	if err != nil {
		return nil, err
	}
	return r.replace(ctx, old, next)
}

// replace puts a pod in the place of one that has ended. That stays while the server would
// not have the other: nobody else knows how it was asked for.
func (r *renewal) replace(ctx context.Context, old, next *corev1.Pod) (*corev1.Pod, error) {
	now, err := r.own(ctx, old.Namespace, old.Name)
	if err == nil {
		err = r.wouldTake(ctx, next)
	}
	if err == nil && r.fresh {
		err = r.settings.dropPast(now)
	} else if err == nil {
		if lost := r.keepPast(ctx, now); lost != nil {
			fmt.Fprintf(r.errOut, "sampan: what %s has printed until now is lost: %v\n", old.Name, lost)
		}
	}
	if err == nil {
		err = r.rm(ctx, now, false)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, errors.Join(fmt.Errorf("start %s: %w", old.Name, err), r.letGo(old))
	}
	made, err := client.Pods.Create(ctx, r, next)
	if apierrors.IsAlreadyExists(err) { // another start was faster, and holds the files itself
		return nil, errors.Join(fmt.Errorf("start %s: %w", old.Name, err), r.letGo(old))
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", old.Name, err)
	}
	return made, nil
}

// wouldTake asks the server whether it would have a pod, if its name were free.
func (s *server) wouldTake(ctx context.Context, pod *corev1.Pod) error {
	trial := pod.DeepCopy()
	trial.Name, trial.GenerateName = "", "sampan-start-"
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace)
	_, err := s.Create(ctx, at, trial, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// started waits until a pod runs, and prints its name.
func (r *renewal) started(ctx context.Context, made *corev1.Pod, out io.Writer) error {
	pods := followPod(ctx, r, made)
	defer pods.stop()
	begins := r.starting(made, r.errOut)
	defer begins.end()
	late := time.After(startWait)
	for state := look(made); !state.running && !state.ended; {
		select {
		case c, ok := <-pods.changes:
			if !ok {
				return pods.err
			}
			state = look(c.pod)
			begins.see(c.pod, state)
			if c.gone {
				return fmt.Errorf("start %s: somebody has removed it", made.Name)
			}
			if state.doomed != "" && !state.mayPass {
				return fmt.Errorf("start %s: %s", made.Name, state.doomed)
			}
		case <-begins.moment:
			if state.doomed != "" {
				return fmt.Errorf("start %s: %s", made.Name, r.unplaced(ctx, made, state.doomed))
			}
			begins.wonder(ctx)
		case e := <-begins.events:
			begins.hear(e)
		case <-begins.late:
			return fmt.Errorf("start %s: %s", made.Name, begins.failure)
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
		ObjectMeta: metav1.ObjectMeta{Name: old.Name, Namespace: old.Namespace, Labels: old.Labels, Annotations: maps.Clone(old.Annotations)},
		Spec:       *old.Spec.DeepCopy(),
	}
	p.Spec.NodeName, p.Spec.ActiveDeadlineSeconds = "", nil // the second is how sampan stop ends a pod
	p.Spec.EphemeralContainers = nil
	delete(p.Annotations, pausedAnnotation)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[idAnnotation] = idOf(old)
	return p
}
