package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func killCommand(p Program, s *Settings) *cobra.Command {
	name, number := "KILL", syscall.SIGKILL
	cmd := ownVerb{
		use: "kill", short: "Send a signal to containers",
		long: `Send a signal to the first process of containers, on this machine. One that is to be
restarted is.`,
		check: func() (err error) { number, err = signalNumber(name); return err },
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			if !look(pod).running {
				return fmt.Errorf("%s does not run", pod.Name)
			}
			err := errors.ErrUnsupported
			if p.Signal != nil {
				err = p.Signal(cmd.Context(), *s, string(pod.UID), number)
			}
			if errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("%s does not run", pod.Name)
			}
			if errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("%s: its process is not on this machine, or not ours: sampan stop ends it everywhere", pod.Name)
			}
			if err == nil {
				err = p.goOn(cmd.Context(), s, server, pod)
			}
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
			}
			return err
		},
	}.command(s)
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "signal, by name or number")
	return cmd
}

// signalNumber reads TERM, SIGTERM or 15.
func signalNumber(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("--signal %q: no such signal", text)
}

func waitCommand(s *Settings) *cobra.Command {
	return ownVerb{
		use: "wait", short: "Wait until containers have ended, and print their exit codes",
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			return server.wait(cmd.Context(), pod, cmd.OutOrStdout())
		},
	}.command(s)
}

// wait prints a container's exit code once it has ended.
func (s *server) wait(ctx context.Context, pod *corev1.Pod, out io.Writer) error {
	pods := followPod(ctx, s, pod)
	defer pods.stop()
	for state := look(pod); !state.ended; {
		c, ok := <-pods.changes
		if !ok {
			return pods.err
		}
		if state = look(c.pod); c.gone && !state.ended {
			return fmt.Errorf("%s was removed before it had ended", pod.Name)
		}
		pod = c.pod
	}
	_, err := fmt.Fprintln(out, look(pod).code)
	return err
}

func portCommand(s *Settings) *cobra.Command {
	namespace := ""
	cmd := &cobra.Command{
		Use: "port NAME [PORT[/udp]]", Short: "Show which ports of the machine lead to a container", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			return leadsTo(pod, args[1:], cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	return cmd
}

// leadsTo prints "8080/tcp -> 0.0.0.0:80" for each, or for one port where it leads from.
func leadsTo(pod *corev1.Pod, wanted []string, out io.Writer) error {
	found := false
	for _, p := range pod.Spec.Containers[0].Ports {
		inside := fmt.Sprintf("%d/%s", p.ContainerPort, strings.ToLower(string(p.Protocol)))
		outside := net.JoinHostPort(cmp.Or(p.HostIP, anyAddress), strconv.Itoa(int(p.HostPort)))
		switch {
		case p.HostPort == 0:
		case len(wanted) == 0:
			fmt.Fprintf(out, "%s -> %s\n", inside, outside)
		case inside == wanted[0] || inside == wanted[0]+"/tcp":
			found = true
			fmt.Fprintln(out, outside)
		}
	}
	if len(wanted) > 0 && !found {
		return fmt.Errorf("%s has no port %s that leads out", pod.Name, wanted[0])
	}
	return nil
}
