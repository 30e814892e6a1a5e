package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// GenericWorkload is upstream's gate for groups of pods that are scheduled as one.
const GenericWorkload = "GenericWorkload"

// known are upstream's feature gates that can be switched here, with v1.37's default.
// What has no gate here is as v1.37 has it by default.
func known() map[string]bool { return map[string]bool{GenericWorkload: false} }

// Gates are feature gates that are not at their default. It is a flag's value, in
// upstream's form: "A=true,B=false".
type Gates map[string]bool

// String implements pflag.Value.
func (g *Gates) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(*g)) {
		parts = append(parts, fmt.Sprintf("%s=%t", name, (*g)[name]))
	}
	return strings.Join(parts, ",")
}

// Type implements pflag.Value.
func (*Gates) Type() string { return "mapStringBool" }

// Set implements pflag.Value; upstream's errors.
func (g *Gates) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, found := strings.Cut(part, "=")
		if !found {
			return fmt.Errorf("missing bool value for %s", name)
		}
		if _, ok := known()[name]; !ok {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, err: %w", name, value, err)
		}
		if *g == nil {
			*g = Gates{}
		}
		(*g)[name] = on
	}
	return nil
}
