package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

// systemCheckCommand is podman's system check.
func systemCheckCommand(s *Settings) *cobra.Command {
	var opts image.CheckOptions
	cmd := &cobra.Command{
		Use: "check", Short: "Compare what is stored of images with its digests", Args: cobra.NoArgs,
		Long: `Read every blob of the images of this machine, and compare it with its digest, and every
layer that is unpacked with the blob it came from. What differs is named, with the images
that need it, and makes the exit code 1. --repair pulls damaged blobs again, by the
digests of images that came from a registry, or by their names where those are gone there, and unpacks damaged layers anew, unless a
container stands on them: stop those first. Volumes, and what containers have written,
have no digests to be compared with.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			found, err := store.Check(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if origins := found.Origins(); opts.Repair && len(origins) > 0 {
				for _, o := range origins {
					if err := bringAnew(cmd, store, o, s.transfers()); err != nil {
						fmt.Fprintln(cmd.ErrOrStderr(), err)
					}
				}
				if found, err = checkedAgain(cmd, store, found, opts); err != nil {
					return err
				}
			}
			return tellChecked(cmd.OutOrStdout(), found)
		},
	}
	cmd.Flags().BoolVarP(&opts.Quick, "quick", "q", false, "read no content: only that every blob is there, and its size")
	cmd.Flags().BoolVarP(&opts.Repair, "repair", "r", false, "bring and unpack anew what is damaged")
	foreignFlags(cmd,
		foreign{name: "force", letter: "f", why: "images that cannot be mended stay, for whoever knows where they come from: sampan rmi removes them"},
		foreign{name: "max", letter: "m", word: true, why: "layers that nothing needs are removed at once"})
	return cmd
}

// bringAnew pulls an image again as it was, and what its name means by now if it is gone.
func bringAnew(cmd *cobra.Command, store *image.Store, o image.Origin, how image.TransferOptions) error {
	err := store.Refetch(cmd.Context(), o, how)
	if !errors.Is(err, image.ErrNotFound) || strings.Contains(o.Name, "@") {
		return err
	}
	img, err := store.Pull(cmd.Context(), o.Name, how)
	if err != nil {
		return err
	}
	if img.Manifest != o.Digest && img.Index != o.Digest {
		fmt.Fprintf(cmd.ErrOrStderr(), "sampan: %s: its registry has %s no more: the name is another image now, %s\n", o.Name, o.Digest, img.ID)
	}
	return nil
}

// checkedAgain looks a second time, and keeps what the first look has mended.
func checkedAgain(cmd *cobra.Command, store *image.Store, before image.Checked, opts image.CheckOptions) (image.Checked, error) {
	now, err := store.Check(cmd.Context(), opts)
	if err != nil {
		return now, err
	}
	left := map[string]bool{}
	for _, d := range now.Damaged {
		left[d.Digest.String()] = true
	}
	for _, d := range before.Damaged {
		if !left[d.Digest.String()] {
			d.Mended = true
			now.Damaged = append(now.Damaged, d)
		}
	}
	return now, nil
}

// tellChecked says what was found; damage that stays is an error.
func tellChecked(out io.Writer, found image.Checked) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	left := 0
	for _, d := range found.Damaged {
		kind, state := "blob", "damaged"
		if d.Layer {
			kind = "layer"
		}
		if d.Mended {
			state = "mended"
		} else {
			left++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", state, kind, d.Digest, d.Cause, neededBy(d))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d blobs (%s) and %d layers: %d damaged", found.Blobs, size(found.Bytes), found.Layers, left)
	if found.Skipped > 0 {
		fmt.Fprintf(out, ", %d layers not compared, since their blobs are", found.Skipped)
	}
	fmt.Fprintln(out)
	if left > 0 {
		return errors.New("damage was found; --repair mends what can be: images that were built here are to be built again")
	}
	return nil
}

// neededBy says who needs what is damaged.
func neededBy(d image.Damage) string {
	if len(d.Images) == 0 {
		return "of the build cache"
	}
	text := "of " + strings.Join(d.Images, ", ")
	if n := len(d.Snapshots); n > 0 {
		text += fmt.Sprintf(", and %d containers stand on it", n)
	}
	return text
}
