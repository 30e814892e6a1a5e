package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

func imagesCommand(s *Settings) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use: "images", Short: "List the images on this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printImages(cmd.OutOrStdout(), list)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, for machines")
	return cmd
}

func printImages(out io.Writer, list []image.Image) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "REPOSITORY\tTAG\tIMAGE ID\tAGE\tSIZE")
	for _, img := range list {
		names := img.Tags
		if len(names) == 0 {
			names = []string{"<none>:<none>"}
		}
		for _, n := range names {
			repo, tag := n[:strings.LastIndexByte(n, ':')], n[strings.LastIndexByte(n, ':')+1:]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", repo, tag, shortID(img.ID), age(img.Created), size(img.Size))
		}
	}
	return w.Flush()
}

func pullCommand(s *Settings) *cobra.Command {
	platform, all, quiet := "", false, false
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Fetch an image from a registry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			opts := s.transfers()
			opts.Architecture, opts.AllPlatforms = strings.TrimPrefix(platform, "linux/"), all
			if !quiet {
				opts.Progress = layersTo(cmd.ErrOrStderr())
			}
			img, err := store.Pull(cmd.Context(), args[0], opts)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", args[0], img.ID, size(img.Size))
			return err
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "what the image is for, such as linux/arm64 (default: this machine)")
	cmd.Flags().BoolVar(&all, "all-platforms", false, "fetch the images for all platforms")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return cmd
}

func pushCommand(s *Settings) *cobra.Command {
	quiet := false
	cmd := &cobra.Command{
		Use: "push IMAGE", Short: "Send an image to the registry in its name", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			opts := s.transfers()
			if !quiet {
				opts.Progress = layersTo(cmd.ErrOrStderr())
			}
			digest, err := store.Push(cmd.Context(), args[0], opts)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", args[0], digest)
			return err
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return cmd
}

func tagCommand(s *Settings) *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME[:TAG]", Short: "Give an image one more name", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			return store.Tag(args[0], args[1])
		},
	}
}

func rmiCommand(s *Settings) *cobra.Command {
	return &cobra.Command{
		Use: "rmi IMAGE...", Short: "Remove images", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			for _, ref := range args {
				if err := store.Remove(ref); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func saveCommand(s *Settings) *cobra.Command {
	output, format := "", ""
	cmd := &cobra.Command{
		Use: "save -o FILE IMAGE...", Short: "Write images to an archive", Args: cobra.MinimumNArgs(1),
		Long: `Write images to an archive that docker, podman, skopeo and sampan load: a
docker-archive that is an OCI layout as well, or with --format=oci that alone.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			store, err := s.images()
			if err != nil {
				return err
			}
			write := store.Save
			switch format {
			case "docker":
			case "oci":
				write = store.SaveLayout
			default:
				return fmt.Errorf("--format=%s: want docker or oci", format)
			}
			if output == "" {
				output = "-"
			}
			if output == "-" && terminal(cmd.OutOrStdout()) {
				return fmt.Errorf("an archive would fill your terminal: say where it goes with -o FILE")
			}
			return writeTo(output, cmd.OutOrStdout(), func(w io.Writer) error { return write(w, args...) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write")
	cmd.Flags().StringVar(&format, "format", "docker", "docker or oci")
	return cmd
}

func loadCommand(s *Settings) *cobra.Command {
	input := ""
	cmd := &cobra.Command{
		Use: "load -i FILE", Short: "Take in images from an archive", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			from := cmd.InOrStdin()
			if info, err := os.Stat(input); err == nil && info.IsDir() {
				loaded, err := store.LoadLayout(cmd.Context(), input)
				return printLoaded(cmd.OutOrStdout(), loaded, err)
			}
			if input != "" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer f.Close()
				from = f
			}
			loaded, err := store.Load(cmd.Context(), from)
			return printLoaded(cmd.OutOrStdout(), loaded, err)
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "file, or directory of an OCI layout, to read (default: standard input)")
	return cmd
}

// printLoaded says what came in, and then what went wrong.
func printLoaded(out io.Writer, loaded []image.Image, failed error) error {
	for _, img := range loaded {
		name := strings.Join(img.Tags, ", ")
		if name == "" {
			name = "<none>"
		}
		fmt.Fprintf(out, "loaded %s  %s\n", name, shortID(img.ID))
	}
	return failed
}

func inspectCommand(s *Settings) *cobra.Command {
	return &cobra.Command{
		Use: "inspect IMAGE|NAME", Short: "Show all that is known of an image or a container, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var img image.Image
			store, err := s.images()
			if err == nil {
				img, err = store.Get(args[0])
			}
			if err == nil {
				return printJSON(cmd.OutOrStdout(), img)
			}
			// Images are root's alone; a container may be looked at by whoever may see it.
			if server, e := s.connect(); e == nil {
				if pod, e := server.own(cmd.Context(), "", args[0]); e == nil {
					pod.ManagedFields = nil
					return printJSON(cmd.OutOrStdout(), pod)
				}
			}
			return err
		},
	}
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// shortID is the first twelve digits of a digest.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// size is a number of bytes for a person.
func size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n), -1
	for ; value >= unit && i < 3; i++ {
		value /= unit
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGT"[i])
}

// age is how long ago something was, for a person.
func age(t time.Time) string {
	if t.IsZero() || t.Unix() <= 0 {
		return "-"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
