package container

import (
	"os"
	"strings"
	"testing"
)

// A Runtime that leaves ends a keeper that keeps nothing, and no other.
func TestLeave(t *testing.T) {
	h := newHome(t)
	if err := h.open().Leave(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(h.cfg.Run); err != nil || len(left) > 0 {
		t.Errorf("an idle keeper has left %v, %v", left, err)
	}
	b := &box{h.open(), t, t.TempDir()}
	b.start(b.config("c1", probeSpec("sleep")))
	pid := b.keeperPID()
	if err := b.Leave(); err != nil {
		t.Fatal(err)
	}
	b.Runtime = h.open()
	if again := b.keeperPID(); again != pid {
		t.Errorf("the keeper of a container was ended: %d is now %d", pid, again)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// A probe must not be what a host's file is read or written through, whichever of
// the keeper's two ways it takes.
func TestExecStaysInside(t *testing.T) {
	b := newBox(t)
	canary := t.TempDir() + "/canary"
	if err := os.WriteFile(canary, []byte("root:x:0:0::/unread:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := b.config("c1", probeSpec("sleep"))
	etc := cfg.Rootfs.Upper + "/etc"
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../.."+canary, etc+"/passwd"); err != nil { // where HOME is looked for
		t.Fatal(err)
	}
	if err := os.Symlink(canary, cfg.Rootfs.Upper+"/tool"); err != nil {
		t.Fatal(err)
	}
	b.start(cfg)
	for _, tty := range []bool{false, true} {
		out := newOutput(t)
		if _, err := b.Exec(b.context(), "c1", ExecConfig{
			Process: process("/bin/probe", "env", "HOME", ";", "read", canary), Stdout: out, TTY: tty,
		}); err != nil {
			t.Error(err)
		}
		if s := out.b.String(); !strings.HasPrefix(s, "HOME /") || !strings.Contains(s, "no such file") || strings.Contains(s, "unread") {
			t.Errorf("tty %v: %q", tty, s)
		}
		if code, err := b.Exec(b.context(), "c1", ExecConfig{Process: process("/tool"), TTY: tty}); err == nil || code != 127 {
			t.Errorf("tty %v: a program of the host: %d, %v", tty, code, err)
		}
	}
	if got, err := os.ReadFile(canary); err != nil || string(got) != "root:x:0:0::/unread:\n" {
		t.Errorf("the canary reads %q, %v", got, err)
	}
}
