package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every target of the tree is found, and none twice.
func TestFind(t *testing.T) {
	t.Chdir("../..")
	packages, err := find([]string{"."}, regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range packages {
		for _, name := range p.targets {
			names = append(names, p.folder+":"+name)
		}
	}
	for _, want := range []string{"control/apiserver:FuzzObject", "control/apiserver/crd:FuzzObject", "node/dns:FuzzPacket"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %s", want, strings.Join(names, " "))
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Errorf("twice: %s", names)
	}
	if _, err := find([]string{"internal"}, regexp.MustCompile("FuzzNothing")); err == nil {
		t.Error("an expression that matches nothing is no error")
	}
}

// The time of a target begins with the line that says so, and of what it prints the
// figures are kept apart.
func TestProgress(t *testing.T) {
	p := &progress{fuzzing: make(chan struct{})}
	for _, part := range []string{"fuzz: elapsed: 0s, gathering baseline coverage: 0/1 comp", "leted\n"} {
		if _, err := p.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-p.fuzzing:
		t.Error("fuzzing before the seeds were tried")
	default:
	}
	_, _ = p.Write([]byte("fuzz: elapsed: 1s, gathering baseline coverage: 1/1 completed, now fuzzing with 1 workers\nfuzz: elapsed: 3s, execs: 12 (4/sec), new interesting: 3 (total: 4)\nPA"))
	select {
	case <-p.fuzzing:
	case <-time.After(time.Second):
		t.Error("the seeds were tried, and nobody knows")
	}
	if got := p.last(); got != "execs: 12, new interesting: 3" {
		t.Errorf("told %q", got)
	}
	if got := p.text(); strings.Contains(got, "execs") || !strings.HasSuffix(got, "workers\nPA") {
		t.Errorf("kept %q", got)
	}
}
