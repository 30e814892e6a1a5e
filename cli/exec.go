package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// execFlags are what the flags of exec say.
type execFlags struct {
	interactive, tty     bool
	detach               bool
	namespace, container string
	// own is what the command has of its own.
	own ownProcess
}

func execCommand(s *Settings) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use: "exec [-it] NAME COMMAND [ARG...]", Short: "Run one more command in a container", Args: cobra.MinimumNArgs(2),
		Long: `Run one more command in a container that runs. Its exit code is sampan's. As which
user, where and with which variables it runs is the container's matter, unless flags
say otherwise: those need the right to use the node's API (nodes/proxy).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.interactive && f.tty && !terminal(os.Stdin) {
				return errors.New("-t with -i needs a terminal as standard input: leave out -t to pipe something in")
			}
			if f.detach {
				return fmt.Errorf("-d: a command ends when nobody is at its end of the line; one that shall go on is left behind by a shell: sampan exec %s sh -c '%s >/dev/null 2>&1 &'", args[0], strings.Join(args[1:], " "))
			}
			if err := f.own.check(); err != nil {
				return err
			}
			server, err := s.connect()
			if err != nil {
				return err
			}
			pod, err := server.named(cmd.Context(), f.namespace, args[0])
			if err != nil {
				return err
			}
			ends := stdio{out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), tty: f.tty}
			if f.interactive {
				ends.in = cmd.InOrStdin()
			}
			err = server.exec(cmd.Context(), pod, f, args[1:], ends)
			switch {
			case cmd.Context().Err() != nil:
				return &ExitError{Code: signalCode(syscall.SIGINT)} // Ctrl-C; the command may run on, as with docker
			case err != nil && look(pod).ended:
				return fmt.Errorf("%s has ended: %w", pod.Name, err)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "connect standard input")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	flags.BoolVarP(&f.detach, "detach", "d", false, "refused, with what does it")
	flags.StringVarP(&f.own.user, "user", "u", "", "USER[:GROUP], names of the container or numbers (default: the container's)")
	flags.StringVarP(&f.own.workdir, "workdir", "w", "", "directory to start in (default: the container's)")
	flags.StringArrayVarP(&f.own.env, "env", "e", nil, "NAME=VALUE, or NAME with the value that it has here")
	flags.StringArrayVar(&f.own.envFiles, "env-file", nil, "file of such lines")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	flags.StringVarP(&f.container, "container", "c", "", "container of the pod (default: its first)")
	return cmd
}

// exec runs a command in a container of the pod.
func (s *server) exec(ctx context.Context, pod *corev1.Pod, f execFlags, command []string, ends stdio) error {
	to := at(pod)
	if f.container != "" {
		to.container = f.container
	}
	own, err := f.own.read()
	if err != nil {
		return err
	}
	q := url.Values{"command": command}
	if own == nil {
		q.Set("container", to.container)
		_, err = s.stream(ctx, to, "exec", q, ends)
		return err
	}
	_, err = s.execOwn(ctx, pod.Spec.NodeName, to, q, own, ends)
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("a user, directory or variables of the command's own need the right to nodes/proxy: %w", err)
	}
	return err
}

func attachCommand(s *Settings) *cobra.Command {
	noStdin, namespace := false, ""
	cmd := &cobra.Command{
		Use: "attach NAME", Short: "Join the terminal or the streams of a container", Args: cobra.ExactArgs(1),
		Long: `Join the streams of a container that runs. Ctrl-P Ctrl-Q leaves a terminal and lets
the container run on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			if !look(pod).running {
				return fmt.Errorf("%s does not run: sampan logs %s shows what it has printed", pod.Name, pod.Name)
			}
			c := pod.Spec.Containers[0]
			ends := stdio{out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), tty: c.TTY, detach: true}
			if c.Stdin && !noStdin {
				ends.in = cmd.InOrStdin()
			}
			_, err = server.stream(cmd.Context(), at(pod), "attach", url.Values{"container": {c.Name}}, ends)
			if errors.Is(err, errDetached) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "only look")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	return cmd
}
