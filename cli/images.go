package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

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

func pinCommand(s *Settings) *cobra.Command {
	undo := false
	cmd := &cobra.Command{
		Use: "pin IMAGE...", Short: "Keep images though nobody uses them", Args: cobra.MinimumNArgs(1),
		Long: `Keep images though nobody uses them: neither the node, when its disk is nearly full,
nor prune removes them. A name that is pinned stays so when it comes to mean another
image; an ID pins every name of the image. sampan images -f pinned=true lists them.`,
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := s.images()
			if err != nil {
				return err
			}
			return each(args, func(ref string) error { return store.Keep(ref, !undo) })
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let them go again, under all their names")
	return cmd
}

func saveCommand(s *Settings) *cobra.Command {
	output, format, platform := "", "", ""
	cmd := &cobra.Command{
		Use: "save -o FILE IMAGE...", Short: "Write images to an archive", Args: cobra.MinimumNArgs(1),
		Long: `Write images to an archive that docker, podman, skopeo and sampan load: a
docker-archive that is an OCI layout as well, or with --format=oci that alone.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			store, err := s.images()
			if err != nil {
				return err
			}
			if format != "docker" && format != "oci" {
				return fmt.Errorf("--format=%s: want docker or oci", format)
			}
			if output == "" {
				output = "-"
			}
			if output == "-" && terminal(cmd.OutOrStdout()) {
				return fmt.Errorf("an archive would fill your terminal: say where it goes with -o FILE")
			}
			return writeTo(output, cmd.OutOrStdout(), 0o644, func(w io.Writer) error {
				return store.SavePlatform(w, strings.TrimPrefix(platform, "linux/"), format == "oci", args...)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write")
	cmd.Flags().StringVar(&format, "format", "docker", "docker or oci")
	cmd.Flags().StringVar(&platform, "platform", "", "of images for several platforms that one alone, such as linux/arm64")
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
			plain, done, err := build.Decompress(from) // docker's may be of xz, too
			if err != nil {
				return err
			}
			defer done()
			loaded, err := store.Load(cmd.Context(), plain)
			return printLoaded(cmd.OutOrStdout(), loaded, err)
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "file, or directory of an OCI layout, to read (default: standard input)")
	cmd.Flags().BoolP("quiet", "q", false, "nothing: no progress is shown")
	foreignFlags(cmd, foreign{name: "platform", word: true, idle: true, why: "all platforms of an archive are taken in; sampan save --platform writes one alone"})
	return cmd
}

// printLoaded says what came in, and then what went wrong.
func printLoaded(out io.Writer, loaded []image.Image, failed error) error {
	for _, img := range loaded {
		for _, name := range img.Tags { // in docker's words, which scripts read
			fmt.Fprintln(out, "Loaded image:", familiar(name))
		}
		if len(img.Tags) == 0 {
			fmt.Fprintln(out, "Loaded image ID:", img.ID)
		}
	}
	return failed
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
