package container

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Nobody in a container finds the keys of who has started the keeper, nor those of
// another container or of another exec, whichever way it is made.
func TestKeyring(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the test, and its keyring with it
	if _, err := unix.KeyctlJoinSessionKeyring("sampan-test"); err != nil {
		t.Skip("this kernel has no keys for us: ", err)
	}
	if _, err := unix.AddKey("user", "host", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	words := func(s string) string {
		return strings.NewReplacer("\r", "", "stdout F ", "").Replace(s)
	}
	const ask, none = "key host ; key mine", "key host false\nkey mine false\n"
	own := b.config("own", probeSpec(strings.Fields("key host ; keep mine ; key mine ; sleep")...))
	b.start(own)
	for _, tty := range []bool{false, true} { // a list, and a stage
		var out strings.Builder
		p := process(append([]string{"/bin/probe"}, strings.Fields(ask)...)...)
		p.Terminal = tty
		code, err := b.Exec(b.context(), "own", ExecConfig{Process: p, TTY: tty, Stdout: &out})
		if got := words(out.String()); got != none || code != 0 || err != nil {
			t.Errorf("an exec, tty %v: %q, code %d, %v", tty, got, code, err)
		}
	}
	if _, got := b.run(b.config("other", probeSpec(strings.Fields(ask)...))); words(got) != none {
		t.Errorf("another container: %q", got)
	}
	seldom := b.config("seldom", probeSpec(strings.Fields(ask)...))
	seldom.Spec.Process.Terminal, seldom.TTY = true, true // what a list cannot do
	if _, got := b.run(seldom); words(got) != none {
		t.Errorf("with a stage: %q", got)
	}
	if got, want := words(b.log(own.LogPath)), "key host false\nkeep mine true\nkey mine true\n"; got != want {
		t.Errorf("its own keys: %q, want %q", got, want)
	}
}
