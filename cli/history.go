package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

// historyFormat is how history shows instructions.
type historyFormat struct {
	output, format string
	whole, quiet   bool
}

// historyRow is an instruction, with the fields that docker's templates have.
type historyRow struct{ ID, CreatedAt, CreatedSince, CreatedBy, Size, Comment string }

func historyCommand(s *Settings) *cobra.Command {
	var f historyFormat
	platform := ""
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
			if err := isFor(img, platform); err != nil {
				return fmt.Errorf("history %s: %w", args[0], err)
			}
			return f.print(cmd.OutOrStdout(), img)
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "json, for machines: the image's own words")
	cmd.Flags().StringVar(&f.format, "format", "", "json, or a template such as {{.CreatedBy}} {{.Size}}")
	cmd.Flags().BoolVar(&f.whole, "no-trunc", false, "show instructions whole")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "IDs only")
	cmd.Flags().BoolP("human", "H", true, "nothing: sizes and ages are for people")
	cmd.Flags().StringVar(&platform, "platform", "", "what the image must be for, such as linux/arm64")
	hide(cmd.Flags(), "human")
	return cmd
}

// isFor says whether an image is for a platform: OS/ARCHITECTURE[/VARIANT], or "" for any.
func isFor(img image.Image, platform string) error {
	c := img.Config
	is := c.OS + "/" + c.Architecture
	if platform == "" || platform == is || c.Variant != "" && platform == is+"/"+c.Variant {
		return nil
	}
	return fmt.Errorf("the image here is for %s: sampan pull --platform %s fetches the other", is, platform)
}

// maxInstruction is how much of an instruction history shows.
const maxInstruction = 80

// print shows the newest first. As in docker, the last has the image's ID and the others
// none.
func (f historyFormat) print(out io.Writer, img image.Image) error {
	if f.output == "json" {
		return printJSON(out, img.Config.History)
	}
	rows := f.rows(img)
	switch {
	case f.quiet:
		return templated(out, "{{.ID}}", rows)
	case f.format != "":
		text, table := strings.CutPrefix(f.format, "table ")
		if table {
			rows = append([]any{historyRow{"IMAGE", "CREATED AT", "CREATED", "CREATED BY", "SIZE", "COMMENT"}}, rows...)
		}
		return templated(out, text, rows)
	}
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "AGE\tSIZE\tINSTRUCTION")
	for _, any := range rows {
		r, _ := any.(historyRow)
		fmt.Fprintf(w, "%s\t%s\t%s\n", strings.TrimSuffix(r.CreatedSince, " ago"), r.Size, r.CreatedBy)
	}
	return w.Flush()
}

func (f historyFormat) rows(img image.Image) []any {
	rows := []any{}
	layer := len(img.Layers)
	for i := len(img.Config.History) - 1; i >= 0; i-- {
		h := img.Config.History[i]
		bytes := int64(0)
		if !h.EmptyLayer && layer > 0 {
			layer--
			bytes = img.Layers[layer].Size
		}
		text := strings.Join(strings.Fields(h.CreatedBy), " ")
		if !f.whole && len(text) > maxInstruction {
			text = text[:maxInstruction-3] + "..."
		}
		at := time.Time{}
		if h.Created != nil {
			at = *h.Created
		}
		r := historyRow{ID: "<missing>", CreatedAt: at.Format(time.RFC3339), CreatedSince: age(at) + " ago", CreatedBy: text, Size: size(bytes), Comment: h.Comment}
		if len(rows) == 0 {
			if r.ID = img.ID; !f.whole {
				r.ID = shortID(img.ID)
			}
		}
		rows = append(rows, r)
	}
	return rows
}
