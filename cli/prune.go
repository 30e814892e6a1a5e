package cli

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/image"
)

// pruning is what is removed that nobody needs.
type pruning struct {
	// images without a name, or all that no container is made of; cache is what builds
	// remember, ended are containers that have ended.
	images, all, cache, ended bool
	// networks that no container is on; volumes that nobody has given a name.
	networks, volumes bool
	// keep and unused say which build layers stay: megabytes, and those wanted since.
	// keepBytes is keep in docker's words.
	keep      int64
	keepBytes string
	unused    time.Duration
	filters   []string
	// known are the names that --filter has.
	known []string
}

// Names that --filter of a prune has.
//
//nolint:gochecknoglobals // constant lists
var (
	byAge    = []string{"until"}
	byLabel  = []string{"label", "label!"}
	byBoth   = []string{"until", "label", "label!"}
	ofImages = []string{"until", "label", "label!", "dangling"}
)

func pruneCommand(s *Settings) *cobra.Command {
	g := &pruning{images: true, known: ofImages}
	cmd := g.command(s, "Remove images and build layers that nobody needs")
	cmd.Long = `Remove images without a name, with --all every image that no container is made of,
with --build-cache the layers that builds remember, and with --containers first the
containers of sampan run that have ended. What runs stays.`
	flags := cmd.Flags()
	flags.BoolVarP(&g.all, "all", "a", false, "also images that have a name, if no container is made of them")
	flags.BoolVar(&g.ended, "containers", false, "also containers that have ended, with what they have printed")
	flags.BoolVar(&g.cache, "build-cache", false, "also the layers that builds remember")
	g.layerFlags(cmd)
	return cmd
}

// containerPruneCommand is docker's container prune.
func containerPruneCommand(s *Settings) *cobra.Command {
	g := &pruning{ended: true, known: byBoth}
	return g.command(s, "Remove containers that have ended, with what they have printed")
}

// builderPruneCommand is docker's builder prune.
func builderPruneCommand(s *Settings) *cobra.Command {
	g := &pruning{cache: true, known: byAge}
	cmd := g.command(s, "Remove what builds remember")
	flags := cmd.Flags()
	flags.BoolP("all", "a", true, "nothing: all of it is meant")
	flags.StringVar(&g.keepBytes, "keep-storage", "", "how much of it to keep, such as 10gb")
	flags.StringVar(&g.keepBytes, "max-used-space", "", "--keep-storage, in buildx' words")
	flags.StringVar(&g.keepBytes, "reserved-space", "", "--keep-storage, in buildx' words")
	hide(flags, "all", "max-used-space", "reserved-space")
	g.layerFlags(cmd)
	foreignFlags(cmd, foreign{name: "builder", word: true, idle: true, why: idleWords["builder"]}, foreign{name: "verbose", idle: true, why: "layers have no names to tell"},
		foreign{name: "min-free-space", word: true, why: "the node frees its disk by itself, by imageGCHighThresholdPercent; --keep-storage says how much stays"})
	return cmd
}

// systemPruneCommand is docker's system prune.
func systemPruneCommand(s *Settings) *cobra.Command {
	g := &pruning{images: true, cache: true, ended: true, networks: true, known: byBoth}
	cmd := g.command(s, "Remove containers that have ended, networks that none is on, images without a name, and what builds remember")
	cmd.Flags().BoolVarP(&g.all, "all", "a", false, "also images that have a name, if no container is made of them")
	cmd.Flags().BoolVar(&g.volumes, "volumes", false, "also volumes that nobody has given a name and no container has")
	g.layerFlags(cmd)
	return cmd
}

// command is the verb, with the flags that all of them have.
func (g *pruning) command(s *Settings, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune", Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := g.check(time.Now())
			if err != nil {
				return err
			}
			return g.run(cmd, s, f)
		},
	}
	cmd.Flags().StringArrayVar(&g.filters, "filter", nil, "only what fits: "+alternatives(g.known))
	cmd.Flags().BoolP("force", "f", false, "nothing: nobody is asked")
	hide(cmd.Flags(), "force")
	return cmd
}

func (g *pruning) layerFlags(cmd *cobra.Command) {
	cmd.Flags().Int64Var(&g.keep, "keep-mb", 0, "megabytes of build layers to keep")
	cmd.Flags().DurationVar(&g.unused, "unused-for", 0, "only build layers that no build has wanted for so long")
}

// check reads what was said. Layers have no labels: where those are asked for, a prune of
// several things leaves layers alone, and one of layers is refused.
func (g *pruning) check(now time.Time) (pruneFilter, error) {
	f, err := pruneFilters(g.filters, now, g.known...)
	if err != nil {
		return f, err
	}
	if g.volumes && !f.until.IsZero() {
		return f, errors.New("--filter until is not of volumes: sampan system prune without --volumes, and sampan volume prune")
	}
	if g.keepBytes != "" {
		q, err := bytesOf(g.keepBytes)
		if err != nil {
			return f, fmt.Errorf("--keep-storage %q: %w", g.keepBytes, err)
		}
		g.keep = max(q.Value()>>20, 1)
	}
	if len(f.with)+len(f.without) > 0 && g.cache {
		if !g.networks {
			return f, errLabelsOfLayers
		}
		g.cache = false
	}
	g.all = (g.all || f.dangling == "false") && f.dangling != "true"
	return f, nil
}

func (g *pruning) run(cmd *cobra.Command, s *Settings, f pruneFilter) error {
	if g.ended {
		if err := s.pruneContainers(cmd, f); err != nil {
			return err
		}
	}
	if g.networks {
		if err := s.pruneNetworks(cmd, f); err != nil {
			return err
		}
	}
	if g.volumes {
		if err := s.pruneVolumes(cmd, false, f); err != nil {
			return err
		}
	}
	if !g.images && !g.cache {
		return nil
	}
	store, err := s.images()
	if err != nil {
		return err
	}
	var done image.Pruned
	if g.images {
		done, err = store.Prune(g.all, func(img image.Image) bool { return f.fits(img.Created, img.Config.Config.Labels) })
		if err != nil {
			return err
		}
	}
	if g.images && !f.asks() { // nothing is known of what is damaged
		remains, err := store.PruneRemains()
		if err != nil {
			return err
		}
		done.Damaged, done.Bytes = remains.Damaged, done.Bytes+remains.Bytes
	}
	if g.cache {
		records, limit, before := g.layers(f, time.Now())
		memories, err := store.PruneMemories(records, limit, before)
		if err != nil {
			return err
		}
		done.Memories, done.Bytes = memories.Memories, done.Bytes+memories.Bytes
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), prunedText(done))
	return err
}

// prunedText says what was removed.
func prunedText(done image.Pruned) string {
	text := fmt.Sprintf("removed %d images and %d build layers", done.Images, done.Memories)
	if done.Damaged > 0 {
		text = fmt.Sprintf("removed %d images, %d build layers and %d damaged blobs", done.Images, done.Memories, done.Damaged)
	}
	return fmt.Sprintf("%s, %s at most", text, size(done.Bytes))
}

// layers says which of what builds remember stays: so many records and bytes at most, and
// none that was last wanted before.
func (g *pruning) layers(f pruneFilter, now time.Time) (records int, limit int64, before time.Time) {
	before = f.until
	if g.unused > 0 {
		before = now.Add(-g.unused)
	}
	if g.keep > 0 || !before.IsZero() {
		records = image.MaxMemories
	}
	limit = g.keep << 20
	if g.keep == 0 && !before.IsZero() {
		limit = image.MaxMemoryBytes
	}
	return records, limit, before
}

// pruneContainers removes the containers of sampan run that have ended and fit.
func (s *Settings) pruneContainers(cmd *cobra.Command, f pruneFilter) error {
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
		if !look(pod).ended || !f.fits(pod.CreationTimestamp.Time, containerLabels(pod)) {
			continue
		}
		if err := server.rm(cmd.Context(), pod, false); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.dropKept(pod))
		fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
	}
	if f.asks() {
		return errors.Join(errs...) // of what is left of others no labels are known
	}
	return errors.Join(append(errs, s.pruneKept(cmd.Context(), server))...)
}

// containerLabels are a container's labels, wherever its pod has them.
func containerLabels(pod *corev1.Pod) map[string]string {
	all := maps.Clone(pod.Annotations)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, pod.Labels)
	return all
}
