package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container"
)

// words collects a flag that may be given several times.
type words []string

func (w *words) String() string     { return strings.Join(*w, " ") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

// execution are the flags of exec that change the process.
type execution struct {
	process, cwd, user string
	env, caps, groups  words
	label, profile     string
	tty, noNewPrivs    bool
}

// exec is `exec`. What goes wrong before there is an exit code has one of its own.
func exec(p *program, args []string) error {
	err := execIn(p, args)
	if errors.As(err, new(exit)) || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return failure{execFailed, err}
}

// execIn always ends with an error: the exit code of the process is one.
func execIn(p *program, args []string) error {
	f, e := verb("exec"), execution{}
	f.StringVar(&e.process, "process", "", "file with the process, as in config.json")
	f.StringVar(&e.process, "p", "", "file with the process, as in config.json")
	f.StringVar(&e.cwd, "cwd", "", "working directory")
	f.StringVar(&e.user, "user", "", "UID[:GID]")
	f.StringVar(&e.user, "u", "", "UID[:GID]")
	f.Var(&e.env, "env", "K=V, several times")
	f.Var(&e.env, "e", "K=V, several times")
	f.Var(&e.caps, "cap", "a capability to add")
	f.Var(&e.caps, "c", "a capability to add")
	f.Var(&e.groups, "additional-gids", "a further group")
	f.Var(&e.groups, "g", "a further group")
	f.BoolVar(&e.tty, "tty", false, "with a terminal")
	f.BoolVar(&e.tty, "t", false, "with a terminal")
	f.BoolVar(&e.noNewPrivs, "no-new-privs", false, "setuid programs gain nothing")
	detach := f.Bool("detach", false, "return once the process runs")
	f.BoolVar(detach, "d", false, "return once the process runs")
	pidFile := f.String("pid-file", "", "file to write the pid to")
	console := f.String("console-socket", "", "unix socket that receives the terminal")
	pidfd := f.String("pidfd-socket", "", "unix socket that receives a pidfd of the process")
	preserve := f.Int("preserve-fds", 0, "how many descriptors after stderr the process inherits")
	frozen := f.Bool("ignore-paused", false, "wait where the container is paused, until it goes on")
	f.StringVar(&e.label, "process-label", "", "SELinux label; the container's when empty")
	f.StringVar(&e.profile, "apparmor", "", "AppArmor profile; the container's when empty")
	var groups words
	f.Var(&groups, "cgroup", "a cgroup below the container's to run in; with v1 [CONTROLLER,...:]PATH, several times")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return fmt.Errorf("usage: %s", commands()["exec"].usage)
	}
	if err := p.needs(); err != nil {
		return err
	}
	process, err := e.of(p, f.Arg(0), f.Args()[1:])
	if err != nil {
		return err
	}
	o := container.OCIExec{
		Process: process, PidFile: *pidFile, Detach: *detach, Frozen: *frozen, Stdio: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
	}
	if o.Preserved, err = preserved(*preserve); err != nil {
		return err
	}
	o.Cgroups = groups
	if *pidfd != "" {
		o.PidFD = container.PidFDSocket(*pidfd)
	}
	return p.exec(f.Arg(0), o, *console)
}

func (p *program) exec(id string, o container.OCIExec, console string) error {
	var term terminal
	switch {
	case console != "":
		o.Console = container.ConsoleSocket(console)
	case o.Process.Terminal && o.Detach:
		return errors.New("a detached process with a terminal needs --console-socket")
	case o.Process.Terminal:
		o.Console = term.open
	}
	s := signals{term: &term}
	if !o.Detach {
		s.take(o.Process.Terminal)
	}
	var followed error
	o.Started = func(pid int) {
		followed = s.follow(pid, func(s syscall.Signal) { _ = syscall.Kill(pid, s) })
	}
	code, err := p.oci.Exec(p.ctx, id, o)
	if err == nil {
		err = followed
	}
	if cerr := term.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return exit(code)
}

// of is the process: that of a file, or the container's with changes.
func (e *execution) of(p *program, id string, argv []string) (*specs.Process, error) {
	out := &specs.Process{}
	if e.process != "" {
		b, err := os.ReadFile(e.process)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, out); err != nil {
			return nil, fmt.Errorf("--process %q: %w", e.process, err)
		}
		out.Terminal = out.Terminal || e.tty
		return out, nil
	}
	if len(argv) == 0 {
		return nil, errors.New("exec: no command: name one, or a file with --process")
	}
	s, err := p.oci.State(id)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(s.Bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	c := specs.Spec{Process: out}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	return out, e.change(out, argv)
}

func (e *execution) change(out *specs.Process, argv []string) error {
	out.Args, out.Terminal = argv, e.tty
	out.Env = append(out.Env, e.env...)
	if e.cwd != "" {
		out.Cwd = e.cwd
	}
	if e.noNewPrivs {
		out.NoNewPrivileges = true
	}
	out.SelinuxLabel, out.ApparmorProfile = cmp.Or(e.label, out.SelinuxLabel), cmp.Or(e.profile, out.ApparmorProfile)
	if len(e.caps) > 0 && out.Capabilities == nil {
		out.Capabilities = &specs.LinuxCapabilities{}
	}
	if c := out.Capabilities; c != nil {
		c.Bounding, c.Effective = append(c.Bounding, e.caps...), append(c.Effective, e.caps...)
		c.Permitted = append(c.Permitted, e.caps...)
		for _, add := range e.caps { // as runc has it: what may be ambient is
			if slices.Contains(c.Inheritable, add) {
				c.Ambient = append(c.Ambient, add)
			}
		}
	}
	for _, g := range e.groups {
		n, err := id32(g)
		if err != nil {
			return fmt.Errorf("--additional-gids: %w", err)
		}
		out.User.AdditionalGids = append(out.User.AdditionalGids, n)
	}
	if e.user == "" {
		return nil
	}
	uid, gid, both := strings.Cut(e.user, ":")
	n, err := id32(uid)
	if err != nil {
		return fmt.Errorf("--user: %w", err)
	}
	out.User.UID = n
	if both {
		if out.User.GID, err = id32(gid); err != nil {
			return fmt.Errorf("--user: %w", err)
		}
	}
	return nil
}

func id32(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not the number of a user or group", s)
	}
	return uint32(n), nil
}
