package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// changing are the instructions that --change may have, which need no RUN and no context.
//
//nolint:gochecknoglobals // a constant list
var changing = []string{"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}

// checkChanges reads --change.
func checkChanges(texts []string) error {
	for _, text := range texts {
		word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
		if !slices.Contains(changing, strings.ToUpper(word)) || strings.ContainsAny(text, "\r\n") {
			return fmt.Errorf("--change %q: want an instruction of a Dockerfile on one line, of %s", text, strings.Join(changing, ", "))
		}
	}
	return nil
}

func changeFlag(cmd *cobra.Command, changes *[]string) {
	cmd.Flags().StringArrayVarP(changes, "change", "c", nil, "instruction of a Dockerfile to change what containers of it begin with: CMD, ENV, EXPOSE and such")
}

func commitCommand(p Program, s *Settings) *cobra.Command {
	var given build.Given
	namespace, pause, noPause := "", true, false
	cmd := &cobra.Command{
		Use: "commit NAME [REPOSITORY[:TAG]]", Short: "Make an image of a container", Args: cobra.RangeArgs(1, 2),
		Long: `Make an image of a container on this machine: of its own image, all that it has changed
beside its volumes, and the words that it was run with. One that runs stands still
meanwhile. An image of a Dockerfile (sampan build) says how it came to be; this one does not.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				given.Ref = args[1]
			}
			if err := checkChanges(given.Changes); err != nil {
				return err
			}
			_, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			img, err := p.commit(cmd.Context(), s, pod, given, pause && !noPause)
			if err != nil {
				return fmt.Errorf("commit %s: %w", pod.Name, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), img.ID)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&given.Author, "author", "a", "", "who has made it")
	flags.StringVarP(&given.Message, "message", "m", "", "a word about it, for sampan history")
	flags.BoolVarP(&pause, "pause", "p", true, "let the container stand still meanwhile")
	flags.BoolVar(&noPause, "no-pause", false, "let it run on")
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	changeFlag(cmd, &given.Changes)
	return cmd
}

// commit makes an image of a pod's container.
func (p Program) commit(ctx context.Context, s *Settings, pod *corev1.Pod, given build.Given, still bool) (img image.Image, err error) {
	key, ok := snapshotOf(pod)
	if !ok {
		return img, errors.New("no container of it is known to sampan's own engine")
	}
	store, err := s.images()
	if err != nil {
		return img, err
	}
	base, err := baseOf(store, key, pod)
	if err != nil {
		return img, err
	}
	v := p.shown(ctx, s, pod)
	given.Config, given.Command = committed(base.Config.Config, v.Config), strings.Join(append(slices.Clone(v.Config.Entrypoint), v.Config.Cmd...), " ")
	if still && look(pod).running && !isPaused(pod) {
		pid, err := p.firstProcess(ctx, s, pod)
		if err == nil {
			err = freeze("/proc", cgroupRoot, pid, true)
		}
		if err != nil {
			return img, fmt.Errorf("%w; --no-pause does without that", err)
		}
		defer func() { err = errors.Join(err, freeze("/proc", cgroupRoot, pid, false)) }()
	}
	img, err = build.FromSnapshot(ctx, store, key, base, given)
	if errors.Is(err, fs.ErrNotExist) {
		return img, errors.New("its container is not on this machine, or no more")
	}
	return img, err
}

// baseOf is the image that a pod's container was made of.
func baseOf(store *image.Store, key string, pod *corev1.Pod) (image.Image, error) {
	if _, keeps := keptPrefix(pod); keeps {
		return store.KeptImage(key)
	}
	return store.Get(pod.Spec.Containers[0].Image)
}

// committed is what an image says of its containers, where one has been run with other
// words.
func committed(base ocispec.ImageConfig, ran configView) ocispec.ImageConfig {
	base.Entrypoint, base.Cmd, base.Env = ran.Entrypoint, ran.Cmd, ran.Env
	base.User, base.WorkingDir, base.StopSignal = ran.User, ran.WorkingDir, ran.StopSignal
	base.Labels = ran.Labels
	if len(ran.ExposedPorts) > 0 {
		base.ExposedPorts = ran.ExposedPorts
	}
	return base
}
