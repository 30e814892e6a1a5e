package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// foreign is a flag of docker's that does not act on a verb here, and why.
type foreign struct {
	// name is its name; letter, unless it is "", its short form.
	name, letter string
	// why says what is so instead, or what to do.
	why string
	// word: it wants a value. same, unless it is "", is the value that asks for what is so.
	word bool
	same string
	// idle: nothing is missed without it, so that it is told of; else it is refused.
	idle bool
}

// foreignFlags has a verb know flags that do not act, so that whoever gives one is told
// before anything is done.
func foreignFlags(cmd *cobra.Command, all ...foreign) {
	for _, f := range all {
		short := "refused: "
		if f.idle {
			short = "does nothing: "
		}
		if f.word {
			cmd.Flags().StringArrayP(f.name, f.letter, nil, short+f.why)
		} else {
			cmd.Flags().BoolP(f.name, f.letter, f.same == "true", short+f.why)
		}
		hide(cmd.Flags(), f.name)
	}
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, f := range all {
			if !f.asks(cmd) {
				continue
			}
			if !f.idle {
				return fmt.Errorf("--%s is not possible: %s", f.name, f.why)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "sampan: --%s does nothing: %s\n", f.name, f.why)
		}
		return nil
	}
}

// asks says whether the flag was given, with a value that asks for anything.
func (f foreign) asks(cmd *cobra.Command) bool {
	if !cmd.Flags().Changed(f.name) {
		return false
	}
	if f.word {
		said, _ := cmd.Flags().GetStringArray(f.name) // it is of that kind
		for _, text := range said {
			if text != f.same {
				return true
			}
		}
		return false
	}
	said, _ := cmd.Flags().GetBool(f.name) // as above
	return said != (f.same == "true")
}

// noTrust is a flag of docker's that says not to verify, which is never done.
//
//nolint:gochecknoglobals // a constant
var noTrust = foreign{name: "disable-content-trust", same: "true", idle: true, why: "there are no signatures of Notary; digests are always verified"}

// sharesMachine is why a build's RUNs have no limits of docker's first builder.
const sharesMachine = "RUNs share this machine"
