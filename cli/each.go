package cli

import (
	"errors"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// ownVerb is a verb for containers of sampan run, each by its name.
type ownVerb struct {
	use, short, long string
	// check looks at flags before anybody is asked anything; nil for nothing.
	check func() error
	// do does it for one of them. It prints the name when it is done.
	do func(cmd *cobra.Command, server *server, pod *corev1.Pod) error
	// absent is what becomes of the error of one that can't be found; nil leaves it.
	absent func(error) error
}

// command is the verb's command: every name is tried, and all that went wrong told.
func (v ownVerb) command(s *Settings) *cobra.Command {
	namespace := ""
	cmd := &cobra.Command{
		Use: v.use + " NAME...", Short: v.short, Long: v.long, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if v.check != nil {
				if err := v.check(); err != nil {
					return err
				}
			}
			server, err := s.connect()
			if err != nil {
				return err
			}
			return each(args, func(name string) error {
				pod, err := server.own(cmd.Context(), namespace, name)
				if err == nil {
					return v.do(cmd, server, pod)
				}
				if v.absent != nil {
					return v.absent(err)
				}
				return err
			})
		},
	}
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
