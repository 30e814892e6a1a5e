package cli

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
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
		fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
	}
	return errors.Join(errs...)
}

func historyCommand(s *Settings) *cobra.Command {
	output, whole := "", false
	cmd := &cobra.Command{
		Use: "history IMAGE", Short: "Show of which instructions an image is made", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			img, err := store.Get(args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), img.Config.History)
			}
			return printHistory(cmd, img, whole)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, for machines")
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "show instructions whole")
	return cmd
}

// printHistory shows the newest first.
func printHistory(cmd *cobra.Command, img image.Image, whole bool) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "AGE\tSIZE\tINSTRUCTION")
	layer := len(img.Layers)
	for i := len(img.Config.History) - 1; i >= 0; i-- {
		h := img.Config.History[i]
		bytes := int64(0)
		if !h.EmptyLayer && layer > 0 {
			layer--
			bytes = img.Layers[layer].Size
		}
		text := strings.Join(strings.Fields(h.CreatedBy), " ")
		if !whole && len(text) > 80 {
			text = text[:77] + "..."
		}
		at := time.Time{}
		if h.Created != nil {
			at = *h.Created
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", age(at), size(bytes), text)
	}
	return w.Flush()
}
