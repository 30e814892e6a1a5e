package cli

import (
	"bytes"
	"context"
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
	format := ""
	cmd := &cobra.Command{
		Use: "inspect IMAGE|NAME...", Short: "Show all that is known of images or containers, as JSON", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(args, func(name string) error {
				found, err := s.known(cmd.Context(), name)
				if err != nil {
					return err
				}
				if format == "" || format == "json" {
					return printJSON(cmd.OutOrStdout(), found)
				}
				return inspectWith(cmd.OutOrStdout(), format, found)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a template over what is shown, such as {{.status.podIP}} or {{json .Config}}")
	return cmd
}

// known is an image, or a container of sampan run.
func (s *Settings) known(ctx context.Context, name string) (any, error) {
	var img image.Image
	store, err := s.images()
	if err == nil {
		img, err = store.Get(name)
	}
	if err == nil {
		return img, nil
	}
	// Images are root's alone; a container may be looked at by whoever may see it.
	if server, e := s.connect(); e == nil {
		if pod, e := server.own(ctx, "", name); e == nil {
			pod = pod.DeepCopy()
			pod.ManagedFields = nil
			return pod, nil
		}
	}
	return nil, err
}

// inspectWith fills a template with what is shown, by the names that are shown.
func inspectWith(out io.Writer, format string, found any) error {
	raw, err := json.Marshal(found)
	if err != nil {
		return err
	}
	var shown any
	numbers := json.NewDecoder(bytes.NewReader(raw))
	numbers.UseNumber() // sizes are whole
	if err := numbers.Decode(&shown); err != nil {
		return err
	}
	return templated(out, format, []any{shown})
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
