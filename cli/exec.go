package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"syscall"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// execFlags are what the flags of exec say.
type execFlags struct {
	interactive, tty     bool
	namespace, container string
	detachKeys           string
	// own is what the command has of its own.
	own ownProcess
}

func execCommand(s *Settings) *cobra.Command {
	var f execFlags
	privileged := false
	cmd := &cobra.Command{
		Use: "exec [-it] NAME COMMAND [ARG...]", Short: "Run one more command in a container", Args: cobra.MinimumNArgs(2),
		Long: `Run one more command in a container that runs. Its exit code is sampan's. As which
user, where and with which variables it runs is the container's matter, unless flags
say otherwise: those, and -d, need the right to use the node's API (nodes/proxy).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.interactive && f.tty && !f.own.detach && !terminal(os.Stdin) {
				return errors.New("-t with -i needs a terminal as standard input: leave out -t to pipe something in")
			}
			if f.own.detach {
				f.interactive, f.tty = false, false // nobody is there
			}
			if privileged {
				return fmt.Errorf("--privileged is not possible: a command has what its container has: sampan run --privileged")
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
			if f.detachKeys != "" {
				if ends.leave, err = parseKeys(f.detachKeys); err != nil {
					return err
				}
			}
			err = server.exec(cmd.Context(), pod, f, args[1:], ends)
			switch {
			case errors.Is(err, errDetached):
				return nil
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
	flags.BoolVarP(&f.own.detach, "detach", "d", false, "return once it runs; it ends by itself, or with the container")
	flags.BoolVar(&privileged, "privileged", false, "refused: a command has what its container has")
	flags.StringVar(&f.detachKeys, "detach-keys", "", "keys that leave the command's terminal; it ends then")
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
		return fmt.Errorf("a user, directory or variables of the command's own, and -d, need the right to nodes/proxy: %w", err)
	}
	return err
}
