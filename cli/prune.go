package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/image"
)

func pruneCommand(s *Settings) *cobra.Command {
	all, cache, ended := false, false, false
	keep := int64(0)
	unused := time.Duration(0)
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove images and build layers that nobody needs", Args: cobra.NoArgs,
		Long: `Remove images without a name, with --all every image that no container is made of,
with --build-cache the layers that builds remember, and with --containers first the
containers of sampan run that have ended. What runs stays.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ended {
				if err := s.pruneContainers(cmd); err != nil {
					return err
				}
			}
			store, err := s.images()
			if err != nil {
				return err
			}
			done, err := store.Prune(all)
			if err != nil {
				return err
			}
			if cache {
				before := time.Time{}
				records := 0
				if unused > 0 {
					before = time.Now().Add(-unused)
				}
				if keep > 0 || unused > 0 {
					records = image.MaxMemories
				}
				limit := keep << 20
				if keep == 0 && unused > 0 {
					limit = image.MaxMemoryBytes
				}
				memories, err := store.PruneMemories(records, limit, before)
				if err != nil {
					return err
				}
				done.Memories, done.Bytes = memories.Memories, done.Bytes+memories.Bytes
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed %d images and %d build layers, %s at most\n", done.Images, done.Memories, size(done.Bytes))
			return err
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name, if no container is made of them")
	cmd.Flags().BoolVar(&ended, "containers", false, "also containers that have ended, with what they have printed")
	cmd.Flags().BoolVar(&cache, "build-cache", false, "also the layers that builds remember")
	cmd.Flags().BoolP("force", "f", false, "nothing: nobody is asked")
	cmd.Flags().Bool("volumes", false, "nothing: volumes without a name go with their containers, and sampan volume prune --all removes others")
	hide(cmd.Flags(), "force", "volumes")
	cmd.Flags().Int64Var(&keep, "keep-mb", 0, "megabytes of build layers to keep")
	cmd.Flags().DurationVar(&unused, "unused-for", 0, "only build layers that no build has wanted for so long")
	return cmd
}

// pruneContainers removes the containers of sampan run that have ended.
func (s *Settings) pruneContainers(cmd *cobra.Command) error {
	server, err := s.connect()
	if err != nil {
		return err
	}
	pods, _, err := client.Pods.List(cmd.Context(), server, server.namespace, metav1.ListOptions{LabelSelector: runLabel})
	if err != nil {
		return unanswered(err)
	}
	var errs []error
	for _, pod := range pods {
		if !look(pod).ended {
			continue
		}
		if err := server.rm(cmd.Context(), pod, false); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.dropKept(pod))
		fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
	}
	return errors.Join(append(errs, s.pruneKept(cmd.Context(), server))...)
}
