package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	tests := map[string]struct {
		in   []string
		want string
	}{
		"whole lines":         {[]string{"a\nb\n"}, "F a|F b|"},
		"a line in pieces":    {[]string{"a", "b", "c\nd\n"}, "F abc|F d|"},
		"no newline":          {[]string{"a\nb"}, "F a|P b|"},
		"empty lines":         {[]string{"\n\n"}, "F |F |"},
		"exactly the longest": {[]string{long + "\n"}, "F " + long + "|"},
		"one more":            {[]string{long + "y\n"}, "P " + long + "|F y|"},
		"longest, then end":   {[]string{long}, "P " + long + "|"},
		"nothing":             {nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := lineLog{stream: "stdout"}
			var out []byte
			for _, s := range tt.in {
				out = append(out, l.add([]byte(s), at)...)
			}
			out = append(out, l.end(at)...)
			got := strings.ReplaceAll(strings.ReplaceAll(string(out), "2026-01-02T03:04:05.000000600Z stdout ", ""), "\n", "|")
			if got != tt.want {
				t.Errorf("got %.80q (%d), want %.80q (%d)", got, len(got), tt.want, len(tt.want))
			}
		})
	}
}

// However the bytes arrive, reading the entries back gives what was printed.
func TestLinesLoseNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var printed strings.Builder
		for range rnd.IntN(20) {
			printed.WriteString(strings.Repeat("z", rnd.IntN(3*maxLine)) + "\n")
		}
		l := lineLog{stream: "stderr"}
		var log strings.Builder
		for rest := []byte(printed.String()); len(rest) > 0; {
			n := min(len(rest), 1+rnd.IntN(2*maxLine))
			log.Write(l.add(rest[:n], at))
			rest = rest[n:]
		}
		log.Write(l.end(at))
		var read strings.Builder
		for line := range strings.Lines(log.String()) {
			f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if len(f) != 4 || f[1] != "stderr" || len(f[3]) > maxLine {
				t.Fatalf("entry %.60q", line)
			}
			read.WriteString(f[3])
			if f[2] == "F" {
				read.WriteString("\n")
			}
		}
		if read.String() != printed.String() {
			t.Fatalf("printed %d bytes, read %d", printed.Len(), read.Len())
		}
	}
}
