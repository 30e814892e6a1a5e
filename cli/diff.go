package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

func diffCommand(s *Settings) *cobra.Command {
	namespace := ""
	cmd := &cobra.Command{
		Use: "diff NAME", Short: "Show what a container has changed of its image's files", Args: cobra.ExactArgs(1),
		Long: `Show what a container on this machine has changed of its image's files: A what it has
made, C what it has changed, D what it has deleted. What is in its volumes is no change.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			id, ok := snapshotOf(pod)
			if !ok {
				return fmt.Errorf("%s: no container of it is known to sampan's own engine", pod.Name)
			}
			store, err := s.images()
			if err != nil {
				return err
			}
			changes, err := store.Changes(id, mountedIn(pod))
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s: its container is not on this machine, or no more", pod.Name)
			}
			if err != nil {
				return err
			}
			for _, c := range changes {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%c %s\n", c.Kind, c.Path); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	return cmd
}

// ownContainer is the ID that our engine has for a pod's first container.
func ownContainer(pod *corev1.Pod) (string, bool) {
	first := pod.Spec.Containers[0].Name
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == first {
			return strings.CutPrefix(c.ContainerID, "sampan://")
		}
	}
	return "", false
}

// given is what every container has from its node.
var given = []string{"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// mountedIn says which paths of a pod's first container something is mounted on.
func mountedIn(pod *corev1.Pod) func(string) bool {
	all := slices.Clone(given)
	c := pod.Spec.Containers[0]
	for _, m := range c.VolumeMounts {
		all = append(all, path.Join("/", m.MountPath))
	}
	all = append(all, path.Join("/", c.TerminationMessagePath))
	return func(at string) bool { return slices.Contains(all, at) }
}
