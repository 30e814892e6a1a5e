package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/sampan-dev/sampan/node/build"
)

// examine tells of a Dockerfile, and builds nothing. Doubts make the exit code 1, for
// scripts.
func examine(out io.Writer, f buildFlags, opts build.Options) error {
	found, err := build.Describe(opts)
	if err != nil {
		for _, warning := range found.Warnings {
			fmt.Fprintln(out, "warning ", warning)
		}
		return buildError(err)
	}
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	switch f.call {
	case "targets":
		fmt.Fprintln(w, "TARGET\tBASE\tDESCRIPTION")
		for _, t := range found.Targets {
			name := t.Name
			if t.Default {
				name += " (default)"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", name, t.Base, t.Description)
		}
		return w.Flush()
	case "outline":
		fmt.Fprintln(w, "ARG\tDEFAULT\tDESCRIPTION")
		for _, a := range found.Args {
			fmt.Fprintf(w, "%s\t%s\t%s\n", a.Name, a.Value, a.Description)
		}
		return w.Flush()
	}
	for _, warning := range found.Warnings {
		fmt.Fprintln(out, "warning ", warning)
	}
	if n := len(found.Warnings); n > 0 {
		return fmt.Errorf("%d warnings", n)
	}
	_, err = fmt.Fprintln(out, "no warnings")
	return err
}
