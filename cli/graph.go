package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// Component is what a part of the control plane or a node says of itself: which
// kinds its decisions depend on, and which parts of which kinds it changes.
type Component struct {
	Name   string   `json:"name"`
	Reads  []string `json:"reads,omitempty"`
	Writes []Change `json:"writes,omitempty"`
}

// Change is one part of a kind that a component changes; Part "" is the whole object.
type Change struct {
	Kind string `json:"kind"`
	Part string `json:"part,omitempty"`
}

// AnyKind stands for all kinds that there are.
const AnyKind = "*"

func graphCommand(p Program) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use: "graph [KIND...]", Short: "Show which component reads and writes which kind",
		Long: `Show which component reads and writes which kind, as the components themselves
declare it: the same declarations by which no part of an object has two owners.
With KINDs such as pods or deployments.apps, only the components that have to do
with one of them. No cluster is needed.

  sampan graph pods
  sampan graph -o dot | dot -Tsvg > graph.svg`,
		RunE: func(cmd *cobra.Command, args []string) error {
			components, err := p.Graph()
			if err != nil {
				return err
			}
			components = about(components, args)
			if len(components) == 0 {
				return fmt.Errorf("no component reads or writes %s", strings.Join(args, ", "))
			}
			switch output {
			case "text":
				return graphText(cmd.OutOrStdout(), components)
			case "json":
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(components)
			case "dot":
				return graphDot(cmd.OutOrStdout(), components)
			}
			return fmt.Errorf("--output %q: want text, json or dot", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json or dot")
	return cmd
}

// about keeps what components have to do with some kinds; none means all.
func about(all []Component, kinds []string) []Component {
	if len(kinds) == 0 {
		return all
	}
	wanted := func(kind string) bool {
		short, _, _ := strings.Cut(kind, ".")
		return kind == AnyKind || slices.Contains(kinds, kind) || slices.Contains(kinds, short)
	}
	var kept []Component
	for _, c := range all {
		one := Component{Name: c.Name}
		for _, r := range c.Reads {
			if wanted(r) {
				one.Reads = append(one.Reads, r)
			}
		}
		for _, w := range c.Writes {
			if wanted(w.Kind) {
				one.Writes = append(one.Writes, w)
			}
		}
		if len(one.Reads)+len(one.Writes) > 0 {
			kept = append(kept, one)
		}
	}
	return kept
}

// graphText writes a table: a line a kind that a component has to do with.
func graphText(out io.Writer, all []Component) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tKIND\tREADS\tWRITES")
	for _, c := range all {
		name := c.Name
		for _, kind := range c.kinds() {
			reads := ""
			if slices.Contains(c.Reads, kind) {
				reads = "yes"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, kind, reads, strings.Join(c.parts(kind), ", "))
			name = ""
		}
	}
	return w.Flush()
}

// kinds are all kinds that a component has to do with, in order.
func (c Component) kinds() []string {
	all := slices.Clone(c.Reads)
	for _, w := range c.Writes {
		all = append(all, w.Kind)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// parts are what a component changes of a kind.
func (c Component) parts(kind string) []string {
	var parts []string
	for _, w := range c.Writes {
		switch {
		case w.Kind != kind:
		case w.Part == "":
			parts = append(parts, "all of it")
		default:
			parts = append(parts, w.Part)
		}
	}
	return parts
}

// graphDot writes a graph for Graphviz: kinds as boxes, components as ellipses,
// arrows the way that news takes.
func graphDot(out io.Writer, all []Component) error {
	var b strings.Builder
	b.WriteString("digraph sampan {\n  rankdir=LR;\n")
	boxes := map[string]bool{}
	for _, c := range all {
		fmt.Fprintf(&b, "  %q;\n", c.Name)
		for _, kind := range c.kinds() {
			if !boxes[kind] {
				boxes[kind] = true
				fmt.Fprintf(&b, "  %q [shape=box];\n", "kind "+kind)
			}
			if slices.Contains(c.Reads, kind) {
				fmt.Fprintf(&b, "  %q -> %q;\n", "kind "+kind, c.Name)
			}
			if parts := c.parts(kind); len(parts) > 0 {
				fmt.Fprintf(&b, "  %q -> %q [label=%q];\n", c.Name, "kind "+kind, strings.Join(parts, "\n"))
			}
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}
