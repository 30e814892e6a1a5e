// Package criu has the program of that name (https://criu.org) write down a tree of
// processes, and bring one back. It knows the program's arguments and words, and runs
// it; which processes, namespaces and mounts there are it is told.
//
// The program is run with arguments, and not spoken to over its socket: what it is asked
// for is then a list of words, which a test reads and a person can repeat.
package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// ErrAbsent says that the machine has no criu.
var ErrAbsent = errors.New("the program criu is not installed on this machine: checkpoints need it (https://criu.org, version 3.16 or newer; most distributions have a package criu)")

// Names in a directory of images, as runc, crun, CRI-O and Podman have them.
const (
	// DescriptorsFile says what the first three descriptors of the first process were.
	DescriptorsFile = "descriptors.json"
	DumpLog         = "dump.log"
	RestoreLog      = "restore.log"
	StatsDump       = "stats-dump"
	// ActionOption has a program called at certain moments. One of them, pre-resume, is when
	// everything is there, and held yet; when it fails criu goes on.
	ActionOption = "--action-script"
	// NetLabel stands for a network namespace that others keep.
	NetLabel = "extRootNetNS"
)

const (
	// lingers bounds how long criu may write: it is ended then. Whoever waits goes
	// sooner; to end it in the middle may take the processes with it that it holds.
	lingers = 15 * time.Minute
	// maxWords bounds what is kept of what criu says.
	maxWords = 4 << 10
	// maxLog bounds how much of the end of its log is read for what went wrong.
	maxLog = 64 << 10
	// searchPath is where the program finds its own (tar, nft, iptables), besides PATH.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Find is the program's path, an absolute one, by PATH; without one it is ErrAbsent.
func Find() (string, error) {
	path, err := exec.LookPath("criu")
	if err != nil || !filepath.IsAbs(path) {
		return "", ErrAbsent
	}
	return path, nil
}

// Environ is what the program is started with.
func Environ() []string { return []string{"PATH=" + os.Getenv("PATH") + ":" + searchPath} }

// Do dumps, and returns when criu has ended. A context that ends does not end criu:
// it holds processes by their insides. Only lingers does.
func (d *Dump) Do(ctx context.Context) error {
	path, err := Find()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lingers)
	defer cancel()
	if err := os.MkdirAll(d.Images, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(d.Work, 0o700); err != nil {
		return err
	}
	if err := d.describe(); err != nil {
		return err
	}
	words := &last{}
	c := exec.CommandContext(ctx, path, d.Args()...)
	c.Dir, c.Env, c.Stdout, c.Stderr = "/", Environ(), words, words
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("not done in %v: %w", lingers, err)
		}
		return Failure("dump", filepath.Join(d.Work, DumpLog), words.String(), err)
	}
	return nil
}

// Failure is the error of a run that ended with err: in criu's own words, which are at
// the end of its log, or on its stderr when it came to no log.
func Failure(doing, log, said string, err error) error {
	what := wrong(tail(log))
	if what == "" {
		what = wrong(said)
	}
	if what == "" {
		what = strings.TrimSpace(said)
	}
	if what == "" {
		return fmt.Errorf("criu %s: %w", doing, err)
	}
	return fmt.Errorf("criu %s: %w: %s", doing, err, what)
}

// maxSaid is how many errors of a log are told: the first ones have the reason.
const maxSaid = 3

// errorLine is what is wrong in a log. It is compiled when something is: a command of the
// OCI runtime has no time for it.
const errorLine = `(?m)^(?:\([0-9.]+\) *)?(?: *[0-9]+: *)?Error \([^)]*\): (.*)$`

// harmless are errors that criu goes on after.
var harmless = []string{"Can't setup RLIMIT_NOFILE"}

// wrong picks the errors out of a log.
func wrong(log string) string {
	var all []string
	for _, m := range regexp.MustCompile(errorLine).FindAllStringSubmatch(log, -1) {
		text := strings.TrimSpace(m[1])
		if len(all) == maxSaid {
			break
		}
		known := false
		for _, h := range harmless {
			known = known || strings.Contains(text, h)
		}
		if !known {
			all = append(all, text)
		}
	}
	return strings.Join(all, "; ")
}

// tail is the end of a file; none is empty.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxLog {
		if _, err := f.Seek(-maxLog, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, _ := io.ReadAll(io.LimitReader(f, maxLog))
	return string(b)
}

// last keeps the end of what is written to it.
type last struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *last) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	if over := l.b.Len() - maxWords; over > 0 {
		l.b.Next(over)
	}
	return len(p), nil
}

func (l *last) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
