package container

import (
	"testing"
)

func TestRunToEnd(t *testing.T) {
	b := newBox(t)
	s, out := b.run(b.config("c1", probeSpec("host", ";", "id", ";", "exit", "3")))
	if s.State != Exited || s.ExitCode != 3 || s.OOMKilled || s.PID != 0 || s.StartedAt.IsZero() || s.FinishedAt.IsZero() {
		t.Errorf("status %+v", s)
	}
	want := "stdout F host inside pid 1\nstdout F id 0 0 [0] / ok\n"
	if out != want {
		t.Errorf("log\n%swant\n%s", out, want)
	}
	if err := b.Remove(b.context(), "c1"); err != nil {
		t.Error(err)
	}
	if err := b.Remove(b.context(), "c1"); err != nil {
		t.Errorf("a second Remove: %v", err)
	}
}
