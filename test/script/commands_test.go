package script

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// pollEvery is how often a condition is looked at again.
const pollEvery = 100 * time.Millisecond

// commands are the words that stories have beyond testscript's own.
func (c *cluster) commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// until DURATION PATTERN COMMAND...: until the command's output matches.
		"until": until,
		// set NAME COMMAND...: the command's output becomes a variable.
		"set": set,
		// context DIR PROGRAM: a build context for hello or toolbox.
		"context": c.buildContext,
		// crash: kill -9 the cluster's process.
		"crash": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(c.crash()) },
		// contained FILE: host PIDs and names of all that runs in containers.
		"contained": c.contained,
		// holdings [-until DURATION] FILE: mounts, addresses, cgroups and more in use.
		"holdings": c.holdings,
		// nothing-left: after sampan down --purge.
		"nothing-left": func(ts *testscript.TestScript, _ bool, _ []string) {
			if left := c.left(); len(left) > 0 {
				ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
			}
		},
		// within DURATION COMMAND...: the command ends, well or badly, in that time.
		"within": within,
		// there COMMAND...: on a second machine in the same network.
		"there": c.there,
		// there-crash: kill -9 the second machine's process.
		"there-crash": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(c.other.crash()) },
		// kubelet NODE TOKEN: what upstream's kubelet gets with a token.
		"kubelet": c.kubelet,
		// repeat FILE COUNT TEXT: a file of so many times the text.
		"repeat": repeat,
		// replace FILE OLD NEW: in the file.
		"replace": replace,
	}
}

// until runs a command again and again until it succeeds with output that
// matches, or, with !, until it does not.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: until DURATION PATTERN COMMAND...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for deadline := time.Now().Add(limit); ; {
		err := ts.Exec(args[2], args[3:]...)
		out := ts.ReadFile("stdout")
		if (err == nil && pattern.MatchString(out)) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %s; the last output:\n%s%s", limit, args[1], out, ts.ReadFile("stderr"))
		}
		<-time.After(pollEvery)
	}
}

func set(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: set NAME COMMAND...")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	value := strings.TrimSpace(ts.ReadFile("stdout"))
	if value == "" {
		ts.Fatalf("%s is empty", args[0])
	}
	ts.Setenv(args[0], value)
}

// within fails when a command takes longer; what it answers is for the next line.
func within(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: within DURATION COMMAND...")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	start := time.Now()
	err = ts.Exec(args[1], args[2:]...)
	if took := time.Since(start); took > limit {
		ts.Fatalf("it took %s, want at most %s", took.Round(time.Millisecond), limit)
	}
	if (err != nil) != neg {
		ts.Fatalf("%s: %v", args[1], err)
	}
}

// dockerfiles of the images that stories use.
var dockerfiles = map[string]string{
	"toolbox": "FROM scratch\nCOPY --chmod=755 bin/toolbox /bin/toolbox\nCOPY --chmod=755 bin/toolbox /bin/tar\nWORKDIR /tmp\nENV PATH=/bin\nENTRYPOINT [\"toolbox\"]\n",
}

func (c *cluster) buildContext(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: context DIR PROGRAM")
	}
	dockerfile, ok := dockerfiles[args[1]]
	if !ok {
		raw, err := os.ReadFile(filepath.Join("..", "..", "examples", args[1], "Dockerfile"))
		ts.Check(err)
		dockerfile = string(raw)
	}
	ts.Check(c.context(ts.MkAbs(args[0]), args[1], dockerfile))
}

func (c *cluster) contained(ts *testscript.TestScript, _ bool, args []string) {
	all, err := c.running()
	ts.Check(err)
	var lines []string
	for _, p := range all {
		if p.contained {
			lines = append(lines, fmt.Sprintf("%d %s", p.pid, p.argv))
		}
	}
	if len(lines) == 0 {
		ts.Fatalf("no process is in a cgroup of %s", c.cgroup)
	}
	slices.Sort(lines)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
}

// holdings writes how much of each scarce thing is in use, for a later "holdings
// -until DURATION FILE", which waits until it is so again: names would differ
// from pod to pod, and what a pod had goes a moment after the pod.
func (c *cluster) holdings(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 1 {
		text, err := c.held()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
		return
	}
	if len(args) != 3 || args[0] != "-until" {
		ts.Fatalf("usage: holdings [-until DURATION] FILE")
	}
	limit, err := time.ParseDuration(args[1])
	ts.Check(err)
	want := ts.ReadFile(args[2])
	for deadline := time.Now().Add(limit); ; {
		got, err := c.held()
		ts.Check(err)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			mounts, _ := c.mounts() // only to help whoever reads this
			ts.Fatalf("after %s there is:\n%swant:\n%sthe mounts:\n%s", limit, got, want, strings.Join(mounts, "\n"))
		}
		<-time.After(pollEvery)
	}
}

func (c *cluster) held() (string, error) {
	var text strings.Builder
	for _, part := range []struct {
		what string
		list func() ([]string, error)
	}{{"mounts", c.mounts}, {"interfaces", interfaces}, {"nft tables", tables}, {"cgroups", c.cgroups}, {"addresses", c.addresses}} {
		items, err := part.list()
		if err != nil {
			return "", fmt.Errorf("%s: %w", part.what, err)
		}
		fmt.Fprintf(&text, "%s: %d\n", part.what, len(items))
	}
	return text.String(), nil
}

// addresses are the files of the pod network's state.
func (c *cluster) addresses() ([]string, error) {
	var found []string
	err := filepath.WalkDir(filepath.Join(c.data, "network"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

func repeat(ts *testscript.TestScript, _ bool, args []string) {
	count := 0
	_, err := fmt.Sscan(args[1], &count)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Repeat(args[2], count)), 0o644))
}

func replace(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not have %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}
