package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

func execCommand(s *Settings) *cobra.Command {
	interactive, tty, namespace, container := false, false, "", ""
	cmd := &cobra.Command{
		Use: "exec [-it] NAME COMMAND [ARG...]", Short: "Run one more command in a container", Args: cobra.MinimumNArgs(2),
		Long: `Run one more command in a container that runs. Its exit code is sampan's.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if interactive && tty && !terminal(os.Stdin) {
				return errors.New("-t with -i needs a terminal as standard input: leave out -t to pipe something in")
			}
			server, err := s.connect()
			if err != nil {
				return err
			}
			pod, err := server.named(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			to := at(pod)
			if container != "" {
				to.container = container
			}
			ends := stdio{out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), tty: tty}
			if interactive {
				ends.in = cmd.InOrStdin()
			}
			q := url.Values{"container": {to.container}, "command": args[1:]}
			_, err = server.stream(cmd.Context(), to, "exec", q, ends)
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
	flags.BoolVarP(&interactive, "interactive", "i", false, "connect standard input")
	flags.BoolVarP(&tty, "tty", "t", false, "give it a terminal")
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	flags.StringVarP(&container, "container", "c", "", "container of the pod (default: its first)")
	return cmd
}

func attachCommand(s *Settings) *cobra.Command {
	noStdin, namespace := false, ""
	cmd := &cobra.Command{
		Use: "attach NAME", Short: "Join the terminal or the streams of a container", Args: cobra.ExactArgs(1),
		Long: `Join the streams of a container that runs. Ctrl-P Ctrl-Q leaves a terminal and lets
the container run on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			pod, err := server.named(cmd.Context(), namespace, args[0])
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
