package build

import (
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/sampan-dev/sampan/node/image"
)

// The rules of "docker build --check" that the parser does not look at itself. What
// they say, and their names, are BuildKit's.

// inspection looks at one Dockerfile.
type inspection struct {
	// at is the linter of the instruction that begins there.
	at func([]parser.Range) *linter.Linter
	// globals are the ARGs before the first FROM.
	globals map[string]bool
}

// inspect reports what is doubtful in a parsed Dockerfile.
func (d dockerfile) inspect(tree *parser.Result) {
	for _, w := range tree.Warnings {
		if w.Location != nil && strings.Contains(strings.ToLower(w.Short), "continuation") {
			d.lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	i := inspection{at: d.lintAt, globals: map[string]bool{}}
	i.casing(tree.AST)
	for _, cmd := range d.args {
		for _, a := range cmd.Args {
			i.globals[a.Key] = true
			i.secret("ARG", a.Key, cmd.Location())
		}
	}
	i.names(d.stages)
	defaults := d.defaults()
	for _, s := range d.stages {
		i.base(s, d.expander(), defaults)
	}
	known := map[string]traits{}
	for n, s := range d.stages {
		i.from(s)
		after := i.stage(s, known[strings.ToLower(s.BaseName)])
		known[strconv.Itoa(n)], known[strings.ToLower(s.Name)] = after, after
	}
}

// casing: most instructions are written one way, so all should be.
func (i inspection) casing(tree *parser.Node) {
	var lower, upper, mixed []*parser.Node
	for _, n := range tree.Children {
		switch word := firstWord(n); word {
		case strings.ToLower(word):
			lower = append(lower, n)
		case strings.ToUpper(word):
			upper = append(upper, n)
		default:
			mixed = append(mixed, n)
		}
	}
	wrong, want := lower, "uppercase"
	if len(lower) > len(upper) {
		wrong, want = upper, "lowercase"
	}
	for _, n := range append(wrong, mixed...) {
		i.at(n.Location()).Run(&linter.RuleConsistentInstructionCasing, n.Location(), linter.RuleConsistentInstructionCasing.Format(firstWord(n), want))
	}
}

func firstWord(n *parser.Node) string {
	word, _, _ := strings.Cut(strings.TrimSpace(n.Original), " ")
	word, _, _ = strings.Cut(word, "\t")
	return word
}

// names are the stages'.
func (i inspection) names(stages []instructions.Stage) {
	known := map[string]bool{}
	for _, s := range stages {
		name := strings.ToLower(s.Name)
		if name == "" {
			continue
		}
		if known[name] {
			i.at(s.Location).Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		known[name] = true
		if name == "scratch" || name == "context" {
			i.at(s.Location).Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
	}
}

// reference finds a variable in a word, with what follows its name.
var reference = regexp.MustCompile(`\$(?:\{([A-Za-z_][A-Za-z0-9_]*)([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)

// from looks at a stage's FROM.
func (i inspection) from(s instructions.Stage) {
	predefined := platformArgs(platform{}, "")
	for _, word := range []string{s.BaseName, s.Platform} {
		for _, m := range reference.FindAllStringSubmatch(word, -1) {
			name := m[1] + m[3]
			if _, ok := predefined[name]; !ok && !i.globals[name] && m[2] == "" {
				i.at(s.Location).Run(&linter.RuleUndefinedArgInFrom, s.Location, linter.RuleUndefinedArgInFrom.Format(name, ""))
			}
		}
	}
	switch {
	case s.Platform == "":
	case s.Platform == "$TARGETPLATFORM" || s.Platform == "${TARGETPLATFORM}":
		i.at(s.Location).Run(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
	case !strings.Contains(s.Platform, "$"):
		// A stage that is called after its platform is chosen by name.
		if p, err := parsePlatform(s.Platform); err != nil || !strings.Contains(strings.ToLower(s.Name), p.arch) && !strings.Contains(strings.ToLower(s.Name), "linux") {
			i.at(s.Location).Run(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(s.Platform))
		}
	}
}

// traits are what checks ask of what came before, in a stage and in those it is based on:
// whether it has a shell of its own, and a working directory.
type traits struct{ shell, absolute bool }

// stage looks at a stage's instructions.
func (i inspection) stage(s instructions.Stage, now traits) traits {
	last := map[string]instructions.Command{}
	for _, c := range s.Commands {
		switch cmd := c.(type) {
		case *instructions.ShellCommand:
			now.shell = true
		case *instructions.WorkdirCommand:
			if !path.IsAbs(cmd.Path) && !strings.HasPrefix(cmd.Path, "$") && !now.absolute {
				i.at(c.Location()).Run(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(cmd.Path))
			}
			now.absolute = true
		case *instructions.CmdCommand:
			i.once(last, c)
			i.form(c, cmd.PrependShell && !now.shell)
		case *instructions.EntrypointCommand:
			i.once(last, c)
			i.form(c, cmd.PrependShell && !now.shell)
		case *instructions.HealthCheckCommand:
			i.once(last, c)
		case *instructions.ArgCommand:
			for _, a := range cmd.Args {
				i.secret("ARG", a.Key, c.Location())
			}
		case *instructions.EnvCommand:
			i.pairs("ENV", cmd.Env, c.Location())
			for _, kv := range cmd.Env {
				i.secret("ENV", kv.Key, c.Location())
			}
		case *instructions.LabelCommand:
			i.pairs("LABEL", cmd.Labels, c.Location())
		case *instructions.ExposeCommand:
			i.ports(cmd)
		}
	}
	return now
}

// once: of several, only the last counts.
func (i inspection) once(last map[string]instructions.Command, c instructions.Command) {
	name := strings.ToUpper(c.Name())
	if before, ok := last[name]; ok {
		i.at(before.Location()).Run(&linter.RuleMultipleInstructionsDisallowed, before.Location(), linter.RuleMultipleInstructionsDisallowed.Format(name))
	}
	last[name] = c
}

// form: a shell in between keeps signals from the program.
func (i inspection) form(c instructions.Command, shell bool) {
	if shell {
		i.at(c.Location()).Run(&linter.RuleJSONArgsRecommended, c.Location(), linter.RuleJSONArgsRecommended.Format(strings.ToUpper(c.Name())))
	}
}

// pairs: "ENV a b" is written "ENV a=b" today.
func (i inspection) pairs(name string, all instructions.KeyValuePairs, at []parser.Range) {
	if slices.ContainsFunc(all, func(kv instructions.KeyValuePair) bool { return kv.NoDelim }) {
		i.at(at).Run(&linter.RuleLegacyKeyValueFormat, at, linter.RuleLegacyKeyValueFormat.Format(name))
	}
}

// secretWord is a word of a name that tells of something secret, and openWord one
// that tells of the opposite, or that it is about a secret only.
var (
	secretWord = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	openWord   = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

// secret: what an ARG or ENV holds is in the image for all to read.
func (i inspection) secret(instruction, name string, at []parser.Range) {
	if secretWord.MatchString(name) && !openWord.MatchString(name) {
		i.at(at).Run(&linter.RuleSecretsUsedInArgOrEnv, at, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, name))
	}
}

// ports are the container's alone.
func (i inspection) ports(cmd *instructions.ExposeCommand) {
	for _, p := range cmd.Ports {
		number, protocol, _ := strings.Cut(p, "/")
		if strings.ContainsAny(number, ":.") {
			i.at(cmd.Location()).Run(&linter.RuleExposeInvalidFormat, cmd.Location(), linter.RuleExposeInvalidFormat.Format(p))
		}
		if protocol != strings.ToLower(protocol) {
			i.at(cmd.Location()).Run(&linter.RuleExposeProtoCasing, cmd.Location(), linter.RuleExposeProtoCasing.Format(p))
		}
	}
}

// expander is a builder that can expand words, and nothing else.
func (d dockerfile) expander() *builder { return &builder{file: d} }

// defaults are the values of the ARGs before the first FROM when none is given.
func (d dockerfile) defaults() map[string]string {
	values := platformArgs(platform{arch: runtime.GOARCH}, "")
	for _, cmd := range d.args {
		for _, a := range cmd.Args {
			if a.Value == nil {
				continue
			}
			if value, err := d.expander().expand(*a.Value, values); err == nil {
				values[a.Key] = value
			}
		}
	}
	return values
}

// base: whoever gives no arguments should be able to build, too.
func (i inspection) base(s instructions.Stage, b *builder, defaults map[string]string) {
	if !strings.Contains(s.BaseName, "$") {
		return
	}
	name, err := b.expand(s.BaseName, defaults)
	if err == nil {
		_, err = image.Normalise(name)
	}
	if err != nil {
		i.at(s.Location).Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
	}
}
