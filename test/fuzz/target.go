package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// seedWait bounds the trying of seeds: a target that needs longer has too many.
	seedWait = 3 * time.Minute
	// endWait is how long a target may take to end once it was told to.
	endWait = 30 * time.Second
	// dumpWait is how long it may take to show its stacks, and again how long what is
	// left of it may hold its output.
	dumpWait = 10 * time.Second
	// retryWait bounds the second try of a failing input.
	retryWait = time.Minute
	// kept is how many interesting inputs of earlier runs a target begins with.
	kept = 200
	// shownLines and shownInput bound what is printed of a failure.
	shownLines, shownInput = 200, 16 << 10
)

// target is one fuzz target of a package that has been built.
type target struct {
	folder, name  string
	binary, cache string
}

// String implements fmt.Stringer: it is what -run matches.
func (t *target) String() string { return t.folder + ":" + t.name }

// errFails is in the error of an input that fails by itself, too.
var errFails = errors.New("it fails alone, too")

// fuzz fuzzes until each has passed after the seeds; told says how it went. Where that
// fails and no input fails by itself (a worker that got no processor for too long, say)
// it is done once more, and told begins with what went wrong the first time.
func (t *target) fuzz(ctx context.Context, each time.Duration) (told string, err error) {
	told, err = t.try(ctx, each)
	if err == nil || errors.Is(err, errFails) {
		return told, err
	}
	first := err
	if told, err = t.try(ctx, each); err == nil {
		told = fmt.Sprintf("unsteady: %v\nthen: %s", first, told)
	}
	return told, err
}

func (t *target) try(ctx context.Context, each time.Duration) (told string, err error) {
	if err := t.prune(); err != nil {
		return "failed", err
	}
	before := t.inputs()
	c := exec.Command(t.binary, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzzminimizetime=10x", "-test.parallel=1", "-test.fuzzcachedir="+t.cache)
	c.Dir, c.WaitDelay = t.folder, dumpWait
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log := &progress{fuzzing: make(chan struct{})}
	c.Stdout, c.Stderr = log, log
	began := time.Now()
	if err := c.Start(); err != nil {
		return "failed", err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	hung := conduct(ctx, c.Process.Pid, log.fuzzing, done, each)
	err = cmp.Or(hung, <-done)
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // its workers, if they are left
	told = fmt.Sprintf("%s (%v)", log.last(), time.Since(began).Round(time.Second))
	switch {
	case ctx.Err() != nil:
		return told, nil
	case err == nil && !log.begun:
		err = errors.New("it has not fuzzed")
	case err == nil:
		return told, nil
	}
	return told, errors.Join(fmt.Errorf("%w\n%s", err, log.text()), t.again(ctx, before))
}

// conduct lets a process fuzz for as long as it should and tells it to end then. It
// returns an error if the process had to be killed; its end is still in done.
func conduct(ctx context.Context, pid int, fuzzing <-chan struct{}, done chan error, each time.Duration) error {
	var hung error
	ended := func(within time.Duration, also <-chan struct{}) bool {
		timer := time.NewTimer(within)
		defer timer.Stop()
		select {
		case err := <-done:
			done <- err
			return true
		case <-also:
		case <-ctx.Done():
		case <-timer.C:
			if also != nil {
				hung = fmt.Errorf("the seeds took longer than %v", within)
			}
		}
		return false
	}
	if ended(seedWait, fuzzing) {
		return nil
	}
	if hung == nil {
		if ended(each, nil) {
			return nil
		}
		_ = syscall.Kill(pid, syscall.SIGINT)
		ctx = context.Background()
		if ended(endWait, nil) {
			return nil
		}
		hung = fmt.Errorf("it did not end within %v", endWait)
	}
	_ = syscall.Kill(-pid, syscall.SIGQUIT) // it shows its stacks
	ctx = context.Background()
	ended(dumpWait, nil)
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	return hung
}

// prune forgets the interesting inputs of earlier runs beyond the newest.
func (t *target) prune() error {
	dir := filepath.Join(t.cache, t.name)
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	age := func(e os.DirEntry) int64 {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(files, func(a, b os.DirEntry) int { return cmp.Compare(age(b), age(a)) })
	for _, f := range files[min(kept, len(files)):] {
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// inputs are the failing inputs that the package keeps.
func (t *target) inputs() []string {
	files, err := filepath.Glob(filepath.Join(t.folder, "testdata", "fuzz", t.name, "*"))
	if err != nil {
		return nil // only a bad pattern has one
	}
	return files
}

// again prints the inputs that are new, and tries each alone.
func (t *target) again(ctx context.Context, before []string) error {
	var errs []error
	for _, path := range t.inputs() {
		if slices.Contains(before, path) {
			continue
		}
		input, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		trying, cancel := context.WithTimeout(ctx, retryWait+dumpWait)
		c := exec.CommandContext(trying, t.binary, "-test.run=^"+t.name+"$/^"+filepath.Base(path)+"$", "-test.timeout="+retryWait.String())
		c.Dir, c.WaitDelay = t.folder, dumpWait
		out, err := c.CombinedOutput()
		cancel()
		how := errFails
		if err == nil {
			how = errors.New("alone it does not fail")
		}
		errs = append(errs, fmt.Errorf("the input, kept as %s:\n%s\n%w:\n%s", path, input[:min(len(input), shownInput)], how, head(out)))
	}
	return errors.Join(errs...)
}

// head is the first lines of an output.
func head(out []byte) string {
	lines := bytes.SplitAfterN(out, []byte("\n"), shownLines+1)
	if len(lines) > shownLines {
		lines[shownLines] = []byte("...\n")
	}
	return string(bytes.Join(lines, nil))
}

var executed = regexp.MustCompile(`execs: \d+|new interesting: \d+`)

// progress is what a fuzzing process prints: the first lines and the last are kept.
type progress struct {
	fuzzing chan struct{} // closed when the seeds have been tried
	begun   bool
	rest    []byte
	lines   []string
	stats   string
}

// Write implements io.Writer; one goroutine of exec calls it, and the rest is read
// after its end.
func (p *progress) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	r := bufio.NewReader(bytes.NewReader(p.rest))
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			p.rest = []byte(line)
			return len(b), nil
		}
		p.add(line)
	}
}

func (p *progress) add(line string) {
	if !p.begun && strings.Contains(line, "now fuzzing with") {
		p.begun = true
		close(p.fuzzing)
	}
	if found := executed.FindAllString(line, -1); found != nil {
		p.stats = strings.Join(found, ", ")
		return
	}
	if len(p.lines) < shownLines {
		p.lines = append(p.lines, line)
	}
}

func (p *progress) last() string { return cmp.Or(p.stats, "nothing was executed") }

func (p *progress) text() string { return strings.Join(p.lines, "") + string(p.rest) }
