package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// printed is the output of a container whose pipe somebody else holds open, too.
func printed(t *testing.T) (o *output, survivor *os.File, log string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(t.TempDir(), "log")
	o = &output{path: log, clients: map[*client]struct{}{}, stdout: r}
	if err := o.reopen(); err != nil {
		t.Fatal(err)
	}
	return o, w, log
}

// text is what a log says, without its times.
func text(t *testing.T, log string) string {
	t.Helper()
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		_, rest, _ := strings.Cut(line, " ")
		out.WriteString(rest)
	}
	return out.String()
}

// drain calls drained, which must return long before what is its bound here.
func drain(t *testing.T, o *output) {
	t.Helper()
	const never = time.Hour
	done := make(chan struct{})
	go func() { o.drained(never); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the end waits for a survivor")
	}
}

// An exit is told once everything that was printed before it is in the log, the
// last piece of a line too, though a survivor has the pipe open.
func TestDrainedOfWhatWasPrinted(t *testing.T) {
	o, w, log := printed(t)
	want := "stdout F " + strings.Repeat("x", 1000) + "\n"
	if _, err := w.WriteString(strings.Repeat("x", 1000) + "\n" + strings.Repeat("y", 2000) + "\nlast words"); err != nil {
		t.Fatal(err)
	}
	o.pump()
	drain(t, o)
	want += "stdout F " + strings.Repeat("y", 2000) + "\nstdout P last words\n"
	if got := text(t, log); got != want {
		t.Errorf("%d bytes logged, want %d; the end is %q", len(got), len(want), got[max(0, len(got)-40):])
	}
	w.Close()
	o.pumps.Wait()
}

// A survivor that prints without end holds nothing up.
func TestDrainedOfASurvivor(t *testing.T) {
	o, w, log := printed(t)
	if _, err := w.WriteString("said before the end\n"); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := w.WriteString(strings.Repeat("survivor\n", 1000)); err != nil {
					return
				}
			}
		}
	}()
	o.pump()
	drain(t, o)
	if got := text(t, log); !strings.HasPrefix(got, "stdout F said before the end\n") {
		t.Errorf("logged %.60q", got)
	}
	close(stop)
	<-stopped
	w.Close()
	o.pumps.Wait()
}

// Output whose pipe has ended is all there.
func TestDrainedToTheEnd(t *testing.T) {
	o, w, log := printed(t)
	if _, err := w.WriteString("all of it"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	o.pump()
	drain(t, o)
	if got := text(t, log); got != "stdout P all of it\n" {
		t.Errorf("logged %q", got)
	}
}
