package build

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"

	"github.com/sampan-dev/sampan/node/image"
)

// maxExpanded bounds a word with its variables replaced, in bytes: a Dockerfile of forty
// lines could double one to the size of the machine.
const maxExpanded = MaxDockerfile

// maxExpanding bounds what replacing them may come to on the way, by an estimate.
const maxExpanding = 64 << 20

// process replaces variables in a word; raw leaves its quotes alone. unknown are the
// variables that nothing has set.
func (b *builder) process(word string, vars map[string]string, raw bool) (got string, unknown map[string]struct{}, err error) {
	env := variables(vars)
	if estimate(word, vars) > maxExpanding {
		return "", nil, tooLong(word)
	}
	lex := shell.NewLex(b.file.escape)
	lex.SkipProcessQuotes = raw
	got, unknown, err = lex.ProcessWord(word, env)
	if len(got) > maxExpanded {
		return "", nil, tooLong(word)
	}
	return got, unknown, err
}

// words replaces variables in a text, which may come to several words: EXPOSE $PORTS.
func (b *builder) words(text string, vars map[string]string) ([]string, error) {
	if estimate(text, vars) > maxExpanding {
		return nil, tooLong(text)
	}
	return shell.NewLex(b.file.escape).ProcessWords(text, variables(vars))
}

// plain says whether a word is what it expands to.
func plain(word string) bool { return !strings.ContainsAny(word, "$'\"\\`") }

func tooLong(word string) error {
	const shown = 40
	return fmt.Errorf("%.*q comes to more than %d bytes with its variables: %w", shown, word, maxExpanded, image.ErrTooLarge)
}

// estimate is how long a word can get: each variable is as long as the longest, and a
// replacement of all matches puts one in place of each of its letters.
func estimate(word string, vars map[string]string) int {
	longest := len(word)
	for _, v := range vars {
		longest = max(longest, len(v))
	}
	size := strings.Count(word, "$") * longest
	for range min(strings.Count(word, "//"), maxNested) {
		if size *= max(longest, 1); size > maxExpanding {
			break
		}
	}
	return size + len(word)
}

// maxNested is from how many replacements on more make no difference to an estimate.
const maxNested = 8

// variables are the values of ARG and ENV as the expansion asks for them.
type variables map[string]string

// Get implements shell.EnvGetter.
func (v variables) Get(name string) (string, bool) {
	value, ok := v[name]
	return value, ok
}

// Keys implements shell.EnvGetter.
func (v variables) Keys() []string {
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	return names
}

// argument is the value of one ARG: what the caller gave, else its default.
func (b *builder) argument(a instructions.KeyValuePairOptional, scope map[string]string) (*string, error) {
	if given, ok := b.opts.Args[a.Key]; ok {
		b.mu.Lock()
		b.consumed[a.Key] = true
		b.mu.Unlock()
		return &given, nil
	}
	if a.Value == nil {
		return nil, nil
	}
	value, err := b.expand(*a.Value, scope)
	return &value, err
}

// expand replaces variables in a word.
func (b *builder) expand(word string, vars map[string]string) (string, error) {
	got, _, err := b.process(word, vars, false)
	return got, err
}

// expandKnown is expand for an instruction's word, which warns of variables that
// nothing has set.
func (b *builder) expandKnown(word string, st *stage, vars map[string]string, cmd instructions.Command) (string, error) {
	got, unknown, err := b.process(word, vars, false)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range reference.FindAllStringSubmatch(word, -1) {
		name := m[1] + m[3]
		if _, ok := unknown[name]; !ok || m[2] != "" || st.asked[name] { // it says what it is when nothing sets it
			continue
		}
		hint, _ := suggest.Search(name, variables(vars).Keys(), true)
		b.file.lintAt(cmd.Location()).Run(&linter.RuleUndefinedVar, cmd.Location(), linter.RuleUndefinedVar.Format(name, hint))
	}
	return got, err
}

// expandRaw is expand for text in which quotes stay as they are: heredocs.
func (b *builder) expandRaw(text string, vars map[string]string) (string, error) {
	got, _, err := b.process(text, vars, true)
	return got, err
}
