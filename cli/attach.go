package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

func attachCommand(p Program, s *Settings) *cobra.Command {
	noStdin := false
	f := runFlags{}
	cmd := &cobra.Command{
		Use: "attach NAME", Short: "Join the terminal or the streams of a container", Args: cobra.ExactArgs(1),
		Long: `Join the streams of a container that runs, until it ends: its exit code is sampan's.
Signals are brought to it, so Ctrl-C asks it to end, unless --sig-proxy=false. Ctrl-P
Ctrl-Q leaves a terminal and lets the container run on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, pod, err := s.podOf(cmd.Context(), f.namespace, args[0])
			if err != nil {
				return err
			}
			f.stopTimeout = stopTime(pod)
			r := &running{
				server: server, program: p, settings: s, pod: pod, joined: true,
				in: cmd.InOrStdin(), out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(),
			}
			return r.rejoin(cmd.Context(), f, noStdin)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&noStdin, "no-stdin", false, "only look")
	flags.BoolVar(&f.sigProxy, "sig-proxy", true, "bring the signals that sampan gets to the command")
	flags.StringVar(&f.detachKeys, "detach-keys", usualKeys, "keys that leave a terminal and let the container run on")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	return cmd
}

// rejoin is a run of a container that somebody else has begun.
func (r *running) rejoin(ctx context.Context, f runFlags, noStdin bool) error {
	state := look(r.pod)
	if !state.running {
		return fmt.Errorf("%s does not run: sampan logs %s shows what it has printed", r.pod.Name, r.pod.Name)
	}
	if err := r.choose(&f); err != nil {
		return err
	}
	c := r.pod.Spec.Containers[0]
	f.tty, f.interactive = c.TTY, c.Stdin && !noStdin
	r.flags, r.attached, r.told = f, state.restarts, state.restarts+1
	if !c.StdinOnce || c.TTY {
		over := make(chan struct{})
		defer close(over)
		r.in = &held{r.in, over}
	}
	ctx, stop := r.listen(ctx)
	defer stop()
	if err := r.stay(ctx); !errors.Is(err, errDetached) {
		return err
	}
	return nil
}

// held is input whose end is not told: a container that goes on reading, for whoever
// comes next, would be left by its node at once, without the answer to what was said last.
type held struct {
	r    io.Reader
	over <-chan struct{}
}

// Read waits at the end until all is over.
func (h *held) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if n == 0 {
		<-h.over
		return 0, io.EOF
	}
	return n, nil
}

// stopTime is how many seconds a pod has between being asked to end and being killed.
func stopTime(pod *corev1.Pod) int64 {
	if t := pod.Spec.TerminationGracePeriodSeconds; t != nil {
		return *t
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}
