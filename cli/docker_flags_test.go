package cli

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
)

// ourLetters are letters of docker's flags that mean something else here: -n is a
// namespace, as of kubectl.
var ourLetters = []string{"ps -n", "container ls -n", "logs -n"}

// Every flag of every verb of docker's that is here is known: it acts, or it says why it
// does not and what to do instead.
func TestEveryFlagOfDocker(t *testing.T) {
	f, err := os.Open("testdata/docker_flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, verbs := New(Program{}), 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		verb, flags, ok := strings.Cut(lines.Text(), ":")
		if !ok || strings.HasPrefix(verb, "#") {
			continue
		}
		verbs++
		cmd, rest, err := root.Find(strings.Fields(verb))
		if err != nil || len(rest) > 0 || cmd.DisableFlagParsing {
			t.Errorf("there is no %s: %v", verb, err)
			continue
		}
		for flag := range strings.FieldsSeq(flags) {
			name, letter, _ := strings.Cut(flag, ",")
			have := cmd.Flags().Lookup(name)
			if have == nil {
				t.Errorf("%s has no --%s", verb, name)
				continue
			}
			if letter == "" || slices.Contains(ourLetters, verb+" -"+letter) {
				continue
			}
			if short := cmd.Flags().ShorthandLookup(letter); short == nil || short.Value != have.Value {
				t.Errorf("%s has no -%s for --%s", verb, letter, name)
			}
		}
	}
	if verbs < 50 {
		t.Errorf("only %d verbs", verbs)
	}
}
