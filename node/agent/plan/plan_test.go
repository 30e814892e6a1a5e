package plan

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

var update = flag.Bool("update", false, "rewrite testdata")

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestTranscripts reads testdata/*.txt: cases of a pod, what the engine has and
// what is going on, then "----" and what Next decides.
//
//	pod restart=Never init=a,b! main=x,y      (! marks a sidecar)
//	have box1 ready | x#0 exited(1) at=-5s    (newest last)
//	know mounted images=x busy=start/x failed=x:liveness started=b crash=x:20s stop=30s
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts (%v)", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { transcript(t, file) })
	}
}

func transcript(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
		given, _, _ := strings.Cut(block, "\n----")
		out = append(out, given+"\n----\n"+decision(Next(parse(t, given))))
	}
	got := strings.Join(out, "\n\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(data) {
		t.Errorf("decisions differ (run with -update and read the diff)\n--- got\n%s", got)
	}
}

func decision(d Decision) string {
	var lines []string
	for _, s := range d.Steps {
		line := s.Key()
		if s.Kind == StartContainer || s.Kind == RunSandbox {
			line += fmt.Sprintf(" attempt=%d", s.Attempt)
		}
		if s.Kind == KillContainer || s.Kind == WarnContainer {
			line += fmt.Sprintf(" grace=%s %q", s.Grace, s.Message)
		}
		if s.Again {
			line += " again"
		}
		lines = append(lines, line)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Waiting)) {
		lines = append(lines, "waiting "+name+": "+d.Waiting[name].Reason)
	}
	if !d.Again.IsZero() {
		lines = append(lines, "again in "+d.Again.Sub(epoch).String())
	}
	if d.Finished {
		lines = append(lines, "finished")
	}
	if d.Stopped {
		lines = append(lines, "stopped")
	}
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, "\n")
}

func parse(t *testing.T, text string) Input {
	in := Input{
		Pod: &corev1.Pod{}, Actual: &actual.Pod{}, Now: epoch, Busy: map[string]bool{}, Images: map[string]bool{},
		Failures: map[string]Failure{}, Crashes: map[string]Crash{}, Verdicts: map[string]Verdict{}, Killed: Killed{},
	}
	in.Pod.Name, in.Pod.Namespace, in.Pod.UID = "p", "ns", "u"
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "pod":
			parsePod(in.Pod, strings.Fields(rest))
		case "have":
			parseHave(t, in.Actual, rest)
		case "know":
			for _, f := range strings.Fields(rest) {
				parseKnow(t, &in, f)
			}
		case "", "#":
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return in
}

func parsePod(pod *corev1.Pod, fields []string) {
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	always := corev1.ContainerRestartPolicyAlways
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		for _, name := range strings.Split(value, ",") {
			c := corev1.Container{Name: strings.TrimSuffix(name, "!"), Image: "i"}
			switch key {
			case "own": // x:Never: a policy of its own
				ownPolicy(pod, name)
			case "all": // x:42: when x ends with 42 all start over
				startOver(pod, name)
			case "restart":
				pod.Spec.RestartPolicy = corev1.RestartPolicy(value)
			case "init":
				if strings.HasSuffix(name, "!") {
					c.RestartPolicy = &always
				}
				pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
			case "main":
				pod.Spec.Containers = append(pod.Spec.Containers, c)
			case "debug":
				e := corev1.EphemeralContainer{}
				e.Name = name
				pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, e)
			}
		}
	}
}

func ownPolicy(pod *corev1.Pod, text string) {
	name, policy, _ := strings.Cut(text, ":")
	own := corev1.ContainerRestartPolicy(policy)
	for c := range mains(pod) {
		if c.Name == name {
			c.RestartPolicy = &own
		}
	}
}

func startOver(pod *corev1.Pod, rule string) {
	name, text, _ := strings.Cut(rule, ":")
	code, _ := strconv.Atoi(text)
	for c := range mains(pod) {
		if c.Name == name {
			c.RestartPolicyRules = append(c.RestartPolicyRules, corev1.ContainerRestartRule{
				Action: corev1.ContainerRestartRuleActionRestartAllContainers,
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
					Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{int32(code)}},
			})
		}
	}
}

// parseHave reads "box1 ready | x#0 running | y#1 exited(2) at=-5s".
func parseHave(t *testing.T, p *actual.Pod, text string) {
	parts := strings.Split(text, "|")
	head := strings.Fields(parts[0])
	box := actual.Sandbox{ID: head[0], Attempt: uint32(len(p.Sandboxes)), Ready: len(head) > 1 && head[1] == "ready"}
	p.Sandboxes = append([]actual.Sandbox{box}, p.Sandboxes...)
	for _, part := range parts[1:] {
		f := strings.Fields(part)
		name, attempt, _ := strings.Cut(f[0], "#")
		n, err := strconv.Atoi(attempt)
		if err != nil {
			t.Fatalf("bad container %q", part)
		}
		c := actual.Container{
			ID: f[0], Name: name, SandboxID: box.ID, Attempt: int32(n), Started: epoch, Finished: epoch,
			Hash: spec.Hash(&corev1.Container{Name: name, Image: "i"}),
		}
		switch {
		case f[1] == "running":
			c.State = actual.Running
		case f[1] == "changed":
			c.State, c.Hash = actual.Running, "other"
		case strings.HasPrefix(f[1], "exited("):
			c.State = actual.Exited
			code, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(f[1], "exited("), ")"))
			c.ExitCode = int32(code)
		case f[1] != "created":
			t.Fatalf("bad state %q", f[1])
		}
		if len(f) > 2 {
			d, err := time.ParseDuration(strings.TrimPrefix(f[2], "at="))
			if err != nil {
				t.Fatal(err)
			}
			c.Started, c.Finished = epoch.Add(d), epoch.Add(d)
		}
		p.Containers = append([]actual.Container{c}, p.Containers...)
	}
}

func parseKnow(t *testing.T, in *Input, f string) {
	key, value, _ := strings.Cut(f, "=")
	name, rest, _ := strings.Cut(value, ":")
	duration := func(s string) time.Duration {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	switch key {
	case "mounted":
		in.Mounted = true
	case "images":
		for _, n := range strings.Split(value, ",") {
			in.Images[n] = true
		}
	case "busy":
		in.Busy[strings.ReplaceAll(value, "_", " ")] = true
	case "failed":
		in.Verdicts[name] = Verdict{Failed: rest, Started: true}
	case "started":
		in.Verdicts[name] = Verdict{Started: true}
	case "crash":
		in.Crashes[name] = Crash{Delay: duration(rest), Last: epoch.Add(-time.Minute)}
	case "killed": // killed=x#0 for good, killed=x#0:again to come back
		in.Killed[name] = rest == "again"
	case "held":
		in.Failures[name] = Failure{Waiting: Waiting{Reason: "Held"}, Until: epoch.Add(duration(rest))}
	case "stop":
		in.Stop = &Stop{Deadline: epoch.Add(duration(value))}
	default:
		t.Fatalf("unknown knowledge %q", f)
	}
}
