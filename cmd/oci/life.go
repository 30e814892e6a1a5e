package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container"
)

// creation are the flags of create and run.
type creation struct {
	bundle, pidFile, console, pidfd string
	preserve                        int
	keepKeyring                     bool
}

func (c *creation) flags(f *flag.FlagSet) {
	f.StringVar(&c.bundle, "bundle", ".", "directory with config.json")
	f.StringVar(&c.bundle, "b", ".", "directory with config.json")
	f.StringVar(&c.pidFile, "pid-file", "", "file to write the pid of the container's process to")
	f.StringVar(&c.console, "console-socket", "", "unix socket that receives the terminal")
	f.StringVar(&c.pidfd, "pidfd-socket", "", "unix socket that receives a pidfd of the container's process")
	f.IntVar(&c.preserve, "preserve-fds", 0, "how many descriptors after stderr the process inherits")
	f.Bool("no-pivot", false, "accepted and ignored: the root is always pivoted")
	f.BoolVar(&c.keepKeyring, "no-new-keyring", false, "leave the container the session keyring of the caller")
	f.Bool("no-subreaper", false, "accepted and ignored")
}

func (c *creation) options() (container.OCICreate, error) {
	c.patience()
	o := container.OCICreate{Bundle: c.bundle, PidFile: c.pidFile, KeepKeyring: c.keepKeyring, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if c.console != "" {
		o.Console = container.ConsoleSocket(c.console)
	}
	if c.pidfd != "" {
		o.PidFD = container.PidFDSocket(c.pidfd)
	}
	var err error
	o.Preserved, err = preserved(c.preserve)
	return o, err
}

// A command lives for milliseconds, and the one that waits does nothing else. What an
// ordinary one makes is an eighth of what the collector waits for; a config.json from
// largeConfig on would bring collections on, and fewCollections puts the first one off to
// 64 MB, where garbage begins to matter. To say so stops the program for a moment.
const (
	largeConfig    = 64 << 10
	fewCollections = 1600
)

// patience makes the collector wait where it would have work.
func (c *creation) patience() {
	if info, err := os.Stat(filepath.Join(c.bundle, "config.json")); err == nil && info.Size() >= largeConfig {
		debug.SetGCPercent(fewCollections)
	}
}

// maxPreserved bounds --preserve-fds.
const maxPreserved = 1024

// preserved are the descriptors after stderr, with those that LISTEN_FDS counts.
func preserved(n int) ([]*os.File, error) {
	if fds, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && fds > 0 {
		n += fds
	}
	if n < 0 || n > maxPreserved {
		return nil, fmt.Errorf("--preserve-fds %d: must be between 0 and %d", n, maxPreserved)
	}
	var out []*os.File
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("--preserve-fds %d: descriptor %d is not open", n, fd)
		}
		out = append(out, os.NewFile(uintptr(fd), "preserved"))
	}
	return out, nil
}

func create(p *program, args []string) error {
	f, c := verb("create"), creation{}
	c.flags(f)
	id, err := one(f, args)
	if err != nil {
		return err
	}
	if err := p.needs(); err != nil {
		return err
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	return p.oci.Create(p.ctx, id, o)
}

// runContainer creates, starts, waits and deletes, with signals passed on.
func runContainer(p *program, args []string) error {
	f, c := verb("run"), creation{}
	c.flags(f)
	detach := f.Bool("detach", false, "return once the process runs")
	f.BoolVar(detach, "d", false, "return once the process runs")
	keep := f.Bool("keep", false, "do not delete the container when its process has ended")
	id, err := one(f, args)
	if err != nil {
		return err
	}
	if err := p.needs(); err != nil {
		return err
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	if *detach {
		return p.oci.Run(p.ctx, id, o)
	}
	var term terminal
	if o.Console == nil {
		o.Console = term.open
	}
	s := signals{term: &term}
	o.Begin = func(spec *specs.Spec) { s.take(spec.Process.Terminal) }
	if err := p.oci.Run(p.ctx, id, o); err != nil {
		return errors.Join(err, term.close())
	}
	err = s.follow(p.oci.MadePID(), func(s syscall.Signal) { _ = p.oci.Kill(p.ctx, id, s, false) })
	code, werr := p.oci.Wait(id)
	err = errors.Join(err, werr)
	err = errors.Join(err, term.close())
	if !*keep {
		err = errors.Join(err, p.oci.Delete(p.ctx, id, true))
	}
	if err != nil {
		return err
	}
	return exit(code)
}

func start(p *program, args []string) error {
	id, err := one(verb("start"), args)
	if err != nil {
		return err
	}
	return p.oci.Start(p.ctx, id)
}

func remove(p *program, args []string) error {
	f := verb("delete")
	force := f.Bool("force", false, "kill it first; no error when there is none")
	f.BoolVar(force, "f", false, "kill it first; no error when there is none")
	id, err := one(f, args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, deleteWait)
	defer cancel()
	return p.oci.Delete(ctx, id, *force)
}

// deleteWait bounds delete: processes in an uninterruptible call may not go.
const deleteWait = 20 * time.Second

func kill(p *program, args []string) error {
	f := verb("kill")
	all := f.Bool("all", false, "every process of the container")
	f.BoolVar(all, "a", false, "every process of the container")
	got, err := parse(f, args, 1, 2)
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	if len(got) == 2 {
		if sig, err = parseSignal(got[1]); err != nil {
			return err
		}
	}
	return p.oci.Kill(p.ctx, got[0], sig, *all)
}

// parseSignal takes 9, KILL and SIGKILL.
func parseSignal(s string) (syscall.Signal, error) {
	const last = 64
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > last {
			return 0, fmt.Errorf("signal %q: must be between 0 and %d", s, last)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("signal %q is not known", s)
}

// state prints what the specification asks for, and what runc adds to it.
func state(p *program, args []string) error {
	id, err := one(verb("state"), args)
	if err != nil {
		return err
	}
	s, err := p.oci.State(id)
	if err != nil {
		return err
	}
	return printJSON(p.full(s))
}

// fullState is the specification's state with the members that callers of runc
// have come to read, in runc's order.
type fullState struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	PID         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func (p *program) full(s specs.State) fullState {
	out := fullState{
		Version: s.Version, ID: s.ID, PID: s.Pid, Status: s.Status, Bundle: s.Bundle, Annotations: s.Annotations,
	}
	var owner int
	out.Created, owner, _ = p.oci.Origin(s.ID) // it may just have gone
	out.Owner = ownerName(owner)
	b, err := os.ReadFile(filepath.Join(s.Bundle, "config.json"))
	if err != nil {
		return out // the bundle may be gone before its container is deleted
	}
	var c struct{ Root specs.Root }
	if json.Unmarshal(b, &c) == nil && c.Root.Path != "" {
		out.Rootfs = c.Root.Path
		if !filepath.IsAbs(out.Rootfs) {
			out.Rootfs = filepath.Join(s.Bundle, out.Rootfs)
		}
	}
	return out
}

// ownerName is the name of a user of the host, or their number.
func ownerName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "#" + strconv.Itoa(uid)
}
