package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// input and output are the two ends of an attachment.
type input struct {
	t testing.TB
	w *io.PipeWriter
}

func (i input) send(s string) {
	i.t.Helper()
	if _, err := io.WriteString(i.w, s); err != nil {
		i.t.Fatal(err)
	}
}

type output struct {
	t    testing.TB
	mu   sync.Mutex
	cond *sync.Cond
	b    bytes.Buffer
	done bool
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cond.Broadcast()
	return o.b.Write(b)
}

func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done = true
	o.cond.Broadcast()
}

// expect waits until the output contains s.
func (o *output) expect(s string) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !strings.Contains(o.b.String(), s) {
		if o.done {
			o.t.Fatalf("output ended with %q, want %q", o.b.String(), s)
		}
		o.cond.Wait()
	}
}

func newOutput(t testing.TB) *output {
	o := &output{t: t}
	o.cond = sync.NewCond(&o.mu)
	return o
}

// newPipe attaches to a container for the rest of the test.
func newPipe(t testing.TB, b *box, id string) (input, *output) {
	t.Helper()
	r, w := io.Pipe()
	out := newOutput(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	go func() {
		err := b.Attach(ctx, id, r, out, out, nil)
		r.CloseWithError(fmt.Errorf("attachment is over: %w", errors.Join(err, io.EOF)))
		out.finish()
	}()
	t.Cleanup(func() {
		cancel()
		w.Close()
	})
	return input{t, w}, out
}

func TestStdinOnce(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("cat", ";", "echo", "end"))
	cfg.Stdin, cfg.StdinOnce = true, true
	b.start(cfg)
	var out bytes.Buffer
	if err := b.Attach(b.context(), "c1", strings.NewReader("hello\n"), &out, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "hello\nend\n"; got != want {
		t.Errorf("attached output %q, want %q", got, want)
	}
	if _, err := b.Wait(b.context(), "c1"); err != nil {
		t.Error(err)
	}
	if got, want := b.log(cfg.LogPath), "stdout F hello\nstdout F end\n"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

// A container that goes on reading after one client's input lets that client go.
func TestStdinLeftOpen(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("cat", ";", "echo", "end"))
	cfg.Stdin = true
	b.start(cfg)
	for range 2 {
		if err := b.Attach(b.context(), "c1", strings.NewReader("hello\n"), io.Discard, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for ctx, seen := b.context(), 0; seen != 2; runtime.Gosched() {
		raw, err := os.ReadFile(cfg.LogPath)
		if err != nil || ctx.Err() != nil {
			t.Fatalf("log %q: %v", raw, err)
		}
		seen = bytes.Count(raw, []byte(" F hello\n"))
	}
	if strings.Contains(b.log(cfg.LogPath), "end") {
		t.Error("its input has ended")
	}
}

// What a container for one client prints before that client comes is kept for it,
// and when it prints more than is kept, it waits.
func TestStdinOnceKeepsWhatCameFirst(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("flood", "1", ";", "cat"))
	cfg.Stdin, cfg.StdinOnce = true, true
	b.start(cfg)
	for printed := int64(0); printed == 0; runtime.Gosched() { // what nobody has seen
		info, err := os.Stat(cfg.LogPath)
		if err != nil {
			t.Fatal(err)
		}
		printed = info.Size()
	}
	var out bytes.Buffer
	if err := b.Attach(b.context(), "c1", strings.NewReader("last"), &out, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := out.Len(), 1<<20/100*100+len("last"); got != want || !strings.HasSuffix(out.String(), "last") {
		t.Errorf("the client got %d bytes, want %d", got, want)
	}
}

// Who has read the log attaches to see what is new: the line that has no end yet, which
// is in no log, and what comes then.
func TestStdinOnceGivesNothingTwice(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("print", "one\n$ ", ";", "lines"))
	cfg.Stdin, cfg.StdinOnce = true, true
	b.start(cfg)
	for b.log(cfg.LogPath) != "stdout F one\n" {
		runtime.Gosched()
	}
	for range 2 { // what has just been logged is in the keeper's hands for a moment more
		if err := b.ReopenLog(b.context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := b.Attach(b.context(), "c1", strings.NewReader("quit\n"), &out, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "$ got quit\n"; got != want {
		t.Errorf("the client got %q, want %q", got, want)
	}
}

func process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true}
}

func TestExec(t *testing.T) {
	b := newBox(t)
	spec := probeSpec("sleep")
	b.start(b.config("c1", spec))
	tests := map[string]struct {
		p    *specs.Process
		in   string
		code int
		out  string
		err  string
	}{
		"code":      {process("probe", "host", ";", "exit", "5"), "", 5, "host inside pid N\n", ""},
		"stdin":     {process("probe", "cat"), "abc", 0, "abc", ""},
		"caps":      {process("probe", "status", "CapEff", "NoNewPrivs"), "", 0, "CapEff: 00000000a80425fb\nNoNewPrivs: 1\n", ""},
		"fds":       {process("probe", "fds"), "", 0, "fds 0,1,2\n", ""},
		"cgroup":    {process("probe", "read", "/proc/self/cgroup"), "", 0, "", ""},
		"not found": {process("nothing"), "", 127, "", `exec: "nothing": executable file not found in $PATH`},
		"bad cwd":   {&specs.Process{Args: []string{"/bin/probe"}, Cwd: "/nowhere"}, "", 128, "", `chdir to cwd ("/nowhere")`},
	}
	for name, tt := range tests {
		run := func(t *testing.T, in io.Reader) {
			var out, errs bytes.Buffer
			cfg := ExecConfig{Process: tt.p, Stdout: &out, Stderr: &errs, Stdin: in}
			code, err := b.Exec(b.context(), "c1", cfg)
			if code != tt.code || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("code %d, %v", code, err)
			}
			got := out.String()
			if name == "code" { // the pid counts on
				got = got[:strings.LastIndex(got, " ")] + " N\n"
			}
			if name == "cgroup" {
				for line := range strings.Lines(strings.TrimPrefix(got, "/proc/self/cgroup ok ")) {
					if !strings.HasSuffix(line, ":/\n") {
						t.Errorf("cgroup line %q: not the container's", line)
					}
				}
				return
			}
			if got != tt.out {
				t.Errorf("output %q, want %q", got, tt.out)
			}
		}
		t.Run(name, func(t *testing.T) { run(t, strings.NewReader(tt.in)) })
		if tt.in == "" { // which the keeper is asked for in another way
			t.Run(name+" without input", func(t *testing.T) { run(t, nil) })
		}
	}
	t.Run("exact", func(t *testing.T) { // the keeper's own threads wake late, nobody else's
		usual, err := os.ReadFile("/proc/self/timerslack_ns")
		if err != nil {
			t.Skip(err)
		}
		s, err := b.Status("c1")
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile("/proc/" + itoa(s.PID) + "/timerslack_ns")
		if err != nil || !bytes.Equal(got, usual) {
			t.Errorf("timer slack %q, %v; want %q", got, err, usual)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		_, err := b.Exec(b.context(), "c1", ExecConfig{Process: process("probe", "sleep"), Timeout: 50 * time.Millisecond})
		if !errors.Is(err, ErrTimeout) {
			t.Errorf("error %v", err)
		}
		if pids, err := b.containers["c1"].group.Pids(); err != nil || len(pids) > 2 {
			t.Errorf("processes %v, %v: the timed out one lives", pids, err)
		}
	})
	t.Run("not running", func(t *testing.T) {
		b.run(b.config("c2", probeSpec("exit", "0")))
		if _, err := b.Exec(b.context(), "c2", ExecConfig{Process: process("probe")}); !errors.Is(err, ErrState) {
			t.Errorf("error %v", err)
		}
	})
}

func TestTTY(t *testing.T) {
	b := newBox(t)
	spec := probeSpec("tty", ";", "lines")
	spec.Process.User.UID = 1000
	spec.Process.ConsoleSize = &specs.Box{Height: 24, Width: 80}
	cfg := b.config("c1", spec)
	cfg.TTY, cfg.Stdin = true, true
	b.start(cfg)
	in, out := newPipe(t, b, "c1")
	in.send("hello\n")
	out.expect("got hello\r\n")
	in.send("quit\n")
	if s, err := b.Wait(b.context(), "c1"); err != nil || s.ExitCode != 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	if log := b.log(cfg.LogPath); !strings.Contains(log, "stdout F tty ok Dcrw--w---- /dev/pts/0\r\n") {
		t.Errorf("log %q", log)
	}
}

func TestExecTTY(t *testing.T) {
	b := newBox(t)
	b.start(b.config("c1", probeSpec("sleep")))
	r, w := io.Pipe()
	out := newOutput(t)
	resize := make(chan Size, 1)
	resize <- Size{Rows: 33, Cols: 101}
	go func() {
		out.expect("up")
		_, _ = io.WriteString(w, "\n")
	}()
	code, err := b.Exec(b.context(), "c1", ExecConfig{
		Process: process("probe", "sigpipe"), TTY: true, Stdin: r, Stdout: out, Resize: resize,
	})
	if err != nil || code != 9 {
		t.Fatalf("code %d, %v", code, err)
	}
	if got := out.b.String(); !strings.HasSuffix(got, "line 9\r\n") {
		t.Errorf("output %q", got)
	}
}

// Who comes too late gets nothing, and is not kept waiting.
func TestAttachAfterTheEnd(t *testing.T) {
	b := newBox(t)
	b.run(b.config("c1", probeSpec("echo", "hello")))
	var out bytes.Buffer
	if err := b.Attach(b.context(), "c1", nil, &out, nil, nil); err != nil || out.Len() > 0 {
		t.Errorf("%v, %q", err, out.String())
	}
	if err := b.Attach(b.context(), "c2", nil, &out, nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("attach to nothing: %v", err)
	}
}

// A client with input that goes away ends the input of a container that has it
// for one client only.
func TestStdinOnceEndsWithItsClient(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("lines", ";", "exit", "4"))
	cfg.Stdin, cfg.StdinOnce = true, true
	b.start(cfg)
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(b.context())
	out := newOutput(t)
	go func() {
		_ = b.Attach(ctx, "c1", r, out, nil, nil) // ends with ctx
		out.finish()
	}()
	input{t, w}.send("hello\n")
	out.expect("got hello\n")
	cancel() // the client is gone, and has never said that its input ends
	if s, err := b.Wait(b.context(), "c1"); err != nil || s.ExitCode != 4 {
		t.Errorf("%+v %v", s, err)
	}
}

// gone is a client that has left.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A command whose client has left is not kept waiting for somebody to read what it
// prints: it is told that nobody does.
func TestClientLeavesExec(t *testing.T) {
	b := newBox(t)
	b.start(b.config("c1", probeSpec("sleep")))
	for name, cfg := range map[string]ExecConfig{
		"brief":      {Stdout: gone{}},
		"with input": {Stdout: gone{}, Stdin: strings.NewReader("")},
		"terminal":   {Stdout: gone{}, TTY: true},
	} {
		t.Run(name, func(t *testing.T) {
			// More than any pipe holds, and little enough for who is told so early that
			// nothing signals it: it only hears errors then, and goes on to the end.
			cfg.Process = process("/bin/probe", "flood", "16")
			cfg.Process.Terminal = cfg.TTY
			if _, err := b.Exec(b.context(), "c1", cfg); errors.Is(err, context.DeadlineExceeded) {
				t.Error("it waits for ever")
			}
		})
	}
}
