package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The processes of a container are those in its cgroup and below, and their words
// can't drive the terminal.
func TestProcesses(t *testing.T) {
	proc := t.TempDir()
	put := func(name, text string) error {
		path := filepath.Join(proc, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600))
	}
	one := func(pid, parent, cgroup, command, uid string) error {
		return errors.Join(
			put(pid+"/cgroup", cgroup), put(pid+"/cmdline", command), put(pid+"/status", "Name:\tx\nUid:\t"+uid+"\t"+uid+"\t0\t0\n"),
			put(pid+"/stat", pid+" (a) b) S "+parent+" 1 1 34817 0 0 0 0 0 0 6000 100 0 0 20 0 1 0 1000 0 0"))
	}
	err := errors.Join(put("uptime", "2000.00 1.0\n"),
		one("10", "1", "5:pids,cpu:/pods/a\n0::/\n", "sh\x00-c\x00evil \x1b[2J\x00", "0"),
		one("11", "10", "5:pids,cpu:/pods/a/child\n0::/\n", "", "1000"),
		one("12", "1", "5:pids,cpu:/pods/ab\n0::/\n", "other\x00", "0"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := processesOf(proc, 10, psFull, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "UID PID PPID C STIME TTY TIME CMD" {
		t.Fatalf("%q", lines)
	}
	for i, want := range map[int]string{1: "root 10 1 3 T pts/1 00:01:01 sh -c evil ?[2J", 2: "1000 11 10 3 T pts/1 00:01:01 [a) b]"} {
		got := strings.Fields(lines[i])
		got[4] = "T"
		if strings.Join(got, " ") != want {
			t.Errorf("%q, want %q", lines[i], want)
		}
	}
}

// What is asked for as of ps is shown so, as far as columns go.
func TestColumns(t *testing.T) {
	p := process{pid: 7, parent: 1, uid: "0", user: "root", tty: "?", state: "S", start: time.Hour, used: 36 * time.Second, memory: 2 << 20, space: 4 << 20, name: "sh", command: "sh -c x"}
	m := machine{boot: time.Now().Add(-2 * time.Hour), up: 2 * time.Hour, memory: 200 << 20}
	for words, want := range map[string]string{
		"-o pid,comm": "PID COMMAND 7 sh", "-eo pid,cmd": "PID COMMAND 7 sh -c x", "-o pid= -o rss=KIB": "", "-o pid,%cpu,%mem,etime": "PID %CPU %MEM ELAPSED 7 1.0 1.0 01:00:00",
		"-o pid,rss=KIB": "PID KIB 7 2048", "o ppid,user,vsz": "PPID USER VSZ 1 root 4096", "-o": "", "-o odd": "", "-q": "", "--sort=pid": "",
	} {
		shown, err := psColumns(strings.Fields(words))
		var out bytes.Buffer
		if err == nil {
			err = printProcesses(&out, []process{p}, shown, m)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", words, got, err, want)
		}
	}
	for words, want := range map[string]string{"": "UID PID PPID C STIME TTY TIME CMD", "aux": "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"} {
		shown, err := psColumns(strings.Fields(words))
		var titles []string
		for _, c := range shown {
			titles = append(titles, c.title)
		}
		if got := strings.Join(titles, " "); err != nil || got != want {
			t.Errorf("%q: %q, %v", words, got, err)
		}
	}
}

func TestBusy(t *testing.T) {
	var before, now podFigures
	now.CPU.Time, now.CPU.Used = time.Unix(10, 0), 5e9
	if got := busy(before, now); got != 0 {
		t.Errorf("of one look: %f", got)
	}
	before = now
	now.CPU.Time, now.CPU.Used = time.Unix(12, 0), 6e9
	if got := busy(before, now); got != 50 {
		t.Errorf("%f", got)
	}
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1536: "1.5KiB", 3 << 30: "3GiB"} {
		if got := binary(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
