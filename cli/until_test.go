package cli

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// A log ends with the first line that is too late, however its bytes arrive.
func TestUntil(t *testing.T) {
	const log = "2026-01-02T03:04:05.1Z one\n2026-01-02T03:04:05.2Z \n2026-01-02T03:04:06.123456789Z two words\n2026-01-02T03:04:07+02:00 early\n2026-01-02T03:04:08Z late\n2026-01-02T03:04:05Z after\n"
	for until, want := range map[string]string{
		"2026-01-02T03:04:07Z": "one\n\ntwo words\nearly\n", "2026-01-02T03:04:05.1Z": "one\n", "2020-01-01T00:00:00Z": "",
	} {
		at, err := time.Parse(time.RFC3339Nano, until)
		if err != nil {
			t.Fatal(err)
		}
		for name, from := range map[string]io.Reader{"at once": strings.NewReader(log), "by bytes": iotest.OneByteReader(strings.NewReader(log))} {
			var out strings.Builder
			if _, err := io.Copy(logQuery{until: at}.ending(&out), from); !errors.Is(err, errLate) || out.String() != want {
				t.Errorf("%s until %s: %q, %v", name, until, out.String(), err)
			}
		}
	}
	var out strings.Builder
	at := time.Date(2026, 1, 2, 3, 4, 7, 0, time.UTC)
	if _, err := io.Copy(logQuery{until: at, timestamps: true}.ending(&out), strings.NewReader(log)); !errors.Is(err, errLate) || !strings.HasPrefix(log, out.String()) || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("with times: %q, %v", out.String(), err)
	}
	if _, err := io.Copy(logQuery{until: at}.ending(io.Discard), strings.NewReader(strings.Repeat("x", 100))); err == nil || errors.Is(err, errLate) {
		t.Error("what has no times was passed on: ", err)
	}
}

// The last lines are the same however their bytes arrive; one that has not ended is a
// line.
func TestLastLines(t *testing.T) {
	for most, want := range map[int64]string{0: "", 1: "three", 2: "two\nthree", 9: "one\ntwo\nthree"} {
		for name, from := range map[string]io.Reader{"at once": strings.NewReader("one\ntwo\nthree"), "by bytes": iotest.OneByteReader(strings.NewReader("one\ntwo\nthree"))} {
			var out strings.Builder
			last := &lastLines{most: most}
			if _, err := io.Copy(last, from); err != nil {
				t.Fatal(err)
			}
			if err := last.writeTo(&out); err != nil || out.String() != want {
				t.Errorf("%s, %d lines: %q, %v", name, most, out.String(), err)
			}
		}
	}
}
