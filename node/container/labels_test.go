package container

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// A container's program and what is executed in it get their labels, whichever way they
// came to be. Any kernel has a file beside those of the security modules that can be
// written in the same way, and be read afterwards.
func TestLabels(t *testing.T) {
	score := func(p *specs.Process) []plan.Label {
		if p.ApparmorProfile == "" {
			return nil
		}
		return []plan.Label{{Attr: "oom_score_adj", Text: p.ApparmorProfile}}
	}
	const verbs, want = "read /proc/self/oom_score_adj", "/proc/self/oom_score_adj ok 321\n"
	for name, c := range map[string]struct{ tty, mapped bool }{
		"a list of calls":            {},
		"a stage":                    {tty: true},
		"a user namespace":           {mapped: true},
		"a terminal and a namespace": {tty: true, mapped: true},
	} {
		t.Run(name, func(t *testing.T) {
			box, pod := newBox, SandboxConfig{ID: "pod"}
			if c.mapped {
				box, pod.UserNS = mappedBox, mappings()
			}
			b := box(t)
			b.labels = score
			cfg := b.in(b.sandbox(pod), "c1", strings.Fields(verbs+" ; lines")...)
			cfg.Spec.Process.ApparmorProfile = "321"
			cfg.Spec.Process.Terminal, cfg.TTY, cfg.Stdin = c.tty, c.tty, true
			b.start(cfg)
			in, out := newPipe(t, b, "c1")
			in.send("go\n")
			out.expect("got go")
			if got := strings.ReplaceAll(b.log(cfg.LogPath), "\r", ""); !strings.Contains(got, want) {
				t.Errorf("the container saw\n%swant\n%s", got, want)
			}
			for _, tty := range []bool{false, true} {
				run := newOutput(t)
				p := process(append([]string{"probe"}, strings.Fields(verbs)...)...)
				p.Terminal = tty
				code, err := b.Exec(b.context(), "c1", ExecConfig{Process: p, Stdout: run, TTY: tty})
				if got := strings.ReplaceAll(run.b.String(), "\r", ""); code != 0 || err != nil || got != want {
					t.Errorf("exec, terminal %v: %d %v\n%s", tty, code, err, got)
				}
			}
			in.send("quit\n")
			if s, err := b.Wait(b.context(), "c1"); err != nil || s.ExitCode != 0 {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}
