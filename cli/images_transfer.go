package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

// transferring is a pull or push of an image, or of all of a repository's.
type transferring struct {
	platform   string
	all, quiet bool
}

func (f *transferring) flags(cmd *cobra.Command, platform, all string) {
	cmd.Flags().StringVar(&f.platform, "platform", "", platform)
	cmd.Flags().BoolVarP(&f.all, "all-tags", "a", false, all)
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	foreignFlags(cmd, noTrust)
}

// options are the transfer's.
func (f *transferring) options(cmd *cobra.Command, s *Settings) image.TransferOptions {
	opts := s.transfers()
	opts.Architecture = strings.TrimPrefix(f.platform, "linux/")
	if !f.quiet {
		opts.Progress = layersTo(cmd.ErrOrStderr())
	}
	return opts
}

// errTagged refuses a name with a tag where all tags are meant.
var errTagged = errors.New("tag can't be used with --all-tags/-a")

// repositoryOf is a name that has neither tag nor digest.
func repositoryOf(name string) (string, error) {
	last := name[strings.LastIndexByte(name, '/')+1:]
	if strings.ContainsAny(last, ":@") {
		return "", errTagged
	}
	full, err := image.Normalise(name)
	return strings.TrimSuffix(full, ":latest"), err
}

func pullCommand(s *Settings) *cobra.Command {
	var f transferring
	whole := false
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Fetch an image from a registry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			opts := f.options(cmd, s)
			opts.AllPlatforms = whole
			names := args
			if f.all {
				if names, err = tagsThere(cmd.Context(), store, args[0], opts); err != nil {
					return err
				}
			}
			return each(names, func(name string) error {
				img, err := store.Pull(cmd.Context(), name, opts)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", name, img.ID, size(img.Size))
				return err
			})
		},
	}
	f.flags(cmd, "what the image is for, such as linux/arm64 (default: this machine)", "fetch all tags of a repository")
	cmd.Flags().BoolVar(&whole, "all-platforms", false, "fetch the images for all platforms")
	return cmd
}

func pushCommand(s *Settings) *cobra.Command {
	var f transferring
	cmd := &cobra.Command{
		Use: "push IMAGE", Short: "Send an image to the registry in its name", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			names := args
			if f.all {
				if names, err = tagsHere(store, args[0]); err != nil {
					return err
				}
			}
			opts := f.options(cmd, s)
			return each(names, func(name string) error {
				digest, err := store.Push(cmd.Context(), name, opts)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", name, digest)
				return err
			})
		},
	}
	f.flags(cmd, "which image of an index to send, such as linux/arm64 (default: all)", "send all tags of a repository")
	return cmd
}

// tagsThere are all names that the registry has of a repository.
func tagsThere(ctx context.Context, store *image.Store, name string, opts image.TransferOptions) ([]string, error) {
	repository, err := repositoryOf(name)
	if err != nil {
		return nil, err
	}
	tags, err := store.Tags(ctx, repository, opts)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, tag := range tags {
		names = append(names, repository+":"+tag)
	}
	return names, nil
}

// tagsHere are all names that this machine has of a repository.
func tagsHere(store *image.Store, name string) ([]string, error) {
	repository, err := repositoryOf(name)
	if err != nil {
		return nil, err
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, img := range list {
		for _, tag := range img.Tags {
			if of, _ := splitTag(tag); of == repository {
				names = append(names, tag)
			}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("an image does not exist locally with the tag: %s", name)
	}
	slices.Sort(names)
	return names, nil
}

func rmiCommand(s *Settings) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "rmi IMAGE...", Short: "Remove images", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			return each(args, func(ref string) error {
				before, err := store.Get(ref)
				if err == nil && !force {
					err = errors.Join(removable(before, ref), s.unused(cmd.Context(), store, before, ref))
				}
				if err == nil {
					err = store.Remove(ref)
				}
				if err != nil {
					return err
				}
				after, err := store.Get(before.ID)
				for _, name := range before.Tags {
					if err != nil || !slices.Contains(after.Tags, name) {
						fmt.Fprintln(cmd.OutOrStdout(), "Untagged:", familiar(name))
					}
				}
				if errors.Is(err, image.ErrNotFound) {
					fmt.Fprintln(cmd.OutOrStdout(), "Deleted:", before.ID)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also images that are pinned, that containers are of, or of several repositories by ID")
	cmd.Flags().Bool("no-prune", false, "does nothing: what other images need stays anyway")
	hide(cmd.Flags(), "no-prune")
	foreignFlags(cmd, foreign{name: "platform", word: true, why: "an image goes with all its platforms; sampan pull --platform replaces one by another"})
	return cmd
}

// removable says whether an image may go without force. An ID means all its names, which
// docker takes for a slip when they are of several repositories.
func removable(img image.Image, ref string) error {
	if img.Pinned {
		return fmt.Errorf("%s is pinned: sampan pin --undo %s lets it go, or rmi -f", ref, ref)
	}
	full, _ := image.Normalise(ref) // an ID is no name
	if len(img.Repositories()) < 2 || slices.Contains(img.Tags, full) || strings.Contains(ref, "@") {
		return nil
	}
	return fmt.Errorf("unable to delete %s (must be forced): image is referenced in multiple repositories: %s", shortID(img.ID), strings.Join(img.Tags, ", "))
}
