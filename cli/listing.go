package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// listing is how a list of what has names is shown: as a table, the names alone, or what
// a template makes of each.
type listing struct {
	quiet  bool
	format string
}

// flags are those by which a person says so; example is of a template.
func (l *listing) flags(cmd *cobra.Command, example string) {
	cmd.Flags().BoolVarP(&l.quiet, "quiet", "q", false, "names only")
	cmd.Flags().StringVar(&l.format, "format", "", "table, json, or a template such as "+example)
}

// show prints all rows: each has a Name, and cells that stand below the columns.
func show[T any](l listing, out io.Writer, all []T, columns []string, cells func(T) []string) error {
	rows := []any{}
	for _, v := range all {
		rows = append(rows, v)
	}
	switch {
	case l.quiet:
		return templated(out, "{{.Name}}", rows)
	case l.format != "" && l.format != "table":
		return templated(out, l.format, rows)
	}
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, v := range all {
		fmt.Fprintln(w, strings.Join(cells(v), "\t"))
	}
	return w.Flush()
}

// inspecting is an inspect for what has names: of each it shows what find tells.
func inspecting[T any](short string, find func(cmd *cobra.Command, name string) (T, error)) *cobra.Command {
	format := ""
	cmd := &cobra.Command{
		Use: "inspect NAME...", Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []any{}
			failed := each(args, func(name string) error {
				v, err := find(cmd, name)
				if err == nil {
					all = append(all, v)
				}
				return err
			})
			if format == "" || format == "json" {
				return errors.Join(printJSON(cmd.OutOrStdout(), all), failed)
			}
			return errors.Join(templated(cmd.OutOrStdout(), format, all), failed)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a template")
	return cmd
}

// hide keeps flags that are there out of the help: those of docker's that do nothing, or
// are others by another name.
func hide(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := flags.MarkHidden(name); err != nil {
			panic(err) // a flag that is not there is a mistake of this program's
		}
	}
}
