package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// step is one instruction being executed.
type step struct {
	cmd   instructions.Command
	event Event
}

// instruction executes one instruction; cached says that its layer was known.
func (b *builder) instruction(ctx context.Context, st *stage, s step) (cached bool, err error) {
	vars := sync.OnceValue(st.variables) // most instructions have none
	expand := func(word string) (string, error) {
		if plain(word) {
			return word, nil
		}
		return b.expandKnown(word, st, vars(), s.cmd)
	}
	if e, ok := s.cmd.(instructions.SupportsSingleWordExpansionRaw); ok {
		if err := e.ExpandRaw(func(word string) (string, error) { return b.expandRaw(word, vars()) }); err != nil {
			return false, err
		}
	}
	if e, ok := s.cmd.(instructions.SupportsSingleWordExpansion); ok && !isArg(s.cmd) {
		if err := e.Expand(expand); err != nil {
			return false, err
		}
	}
	switch cmd := s.cmd.(type) {
	case *instructions.CopyCommand:
		return b.copy(ctx, st, cmd)
	case *instructions.AddCommand:
		return b.add(ctx, st, cmd)
	case *instructions.RunCommand:
		return b.runCommand(ctx, st, s, cmd)
	case *instructions.WorkdirCommand:
		return b.workdir(ctx, st, cmd)
	case *instructions.ArgCommand:
		return false, b.arg(st, cmd)
	case *instructions.ExposeCommand:
		var ports []string
		for _, p := range cmd.Ports {
			some, err := b.words(p, vars())
			if err != nil {
				return false, err
			}
			ports = append(ports, some...)
		}
		return false, expose(st, ports)
	}
	return false, configure(st, s.cmd)
}

// isArg: a default is expanded when it is wanted, which it is not when a value is given.
func isArg(c instructions.Command) bool {
	_, is := c.(*instructions.ArgCommand)
	return is
}

// variables are what an instruction may refer to: ENV wins over ARG.
func (st *stage) variables() map[string]string {
	vars := maps.Clone(st.args)
	for _, kv := range st.config.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		vars[k] = v
	}
	return vars
}

// arg brings an ARG into the stage's scope.
func (b *builder) arg(st *stage, cmd *instructions.ArgCommand) error {
	for _, a := range cmd.Args {
		st.asked[a.Key] = true
		value, err := b.argument(a, st.variables())
		if err != nil {
			return err
		}
		if value == nil {
			if global, ok := b.globals[a.Key]; ok {
				value = &global
			}
		}
		if value != nil {
			st.args[a.Key] = *value
		}
	}
	return nil
}

// configure applies an instruction that only changes the image's config.
func configure(st *stage, cmd instructions.Command) error {
	c := &st.config.Config
	switch cmd := cmd.(type) {
	case *instructions.EnvCommand:
		for _, kv := range cmd.Env {
			c.Env = setEnv(c.Env, kv.Key, kv.Value)
		}
	case *instructions.LabelCommand:
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		for _, kv := range cmd.Labels {
			c.Labels[kv.Key] = kv.Value
		}
	case *instructions.MaintainerCommand:
		st.config.Author = cmd.Maintainer
	case *instructions.UserCommand:
		c.User = cmd.User
	case *instructions.StopSignalCommand:
		if !isSignal(cmd.Signal) {
			return fmt.Errorf("STOPSIGNAL %s: no such signal: %w", cmd.Signal, image.ErrInvalid)
		}
		c.StopSignal = cmd.Signal
	case *instructions.CmdCommand:
		c.Cmd, st.ownCmd = st.commandLine(cmd.ShellDependantCmdLine), true
	case *instructions.EntrypointCommand:
		c.Entrypoint = st.commandLine(cmd.ShellDependantCmdLine)
		if !st.ownCmd {
			c.Cmd = nil // Docker: a new ENTRYPOINT voids an inherited CMD, and no other
		}
	case *instructions.VolumeCommand:
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		for _, v := range cmd.Volumes {
			c.Volumes[v] = struct{}{}
		}
	case *instructions.ShellCommand:
		st.shell = cmd.Shell
		st.extra["Shell"] = cmd.Shell
	case *instructions.HealthCheckCommand:
		st.extra["Healthcheck"] = cmd.Health
	case *instructions.OnbuildCommand:
		triggers, _ := st.extra["OnBuild"].([]string)
		st.extra["OnBuild"] = append(slices.Clone(triggers), cmd.Expression)
	default:
		return fmt.Errorf("%s: %w", strings.ToUpper(cmd.Name()), ErrUnsupported)
	}
	return nil
}

// realTime are the signals that have a number after their name, up to this one.
var realTime = map[string]int{"RTMIN+": 15, "RTMAX-": 14} //nolint:gochecknoglobals // a constant map

// isSignal says whether a text is a signal as STOPSIGNAL has it: a number, or a name
// with or without its SIG.
func isSignal(text string) bool {
	const most = 64
	if n, err := strconv.Atoi(text); err == nil {
		return n > 0 && n <= most
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for prefix, highest := range realTime {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.Atoi(rest)
			return err == nil && n > 0 && n <= highest
		}
	}
	return name == "RTMIN" || name == "RTMAX" || unix.SignalNum("SIG"+name) != 0
}

// expose records ports; a bare number is TCP, a range is each of its ports.
func expose(st *stage, ports []string) error {
	c := &st.config.Config
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		all, err := exposed(p)
		if err != nil {
			return err
		}
		for _, one := range all {
			c.ExposedPorts[one] = struct{}{}
		}
	}
	return nil
}

// exposed spells out one argument of EXPOSE: "80", "53/udp", "8000-8010/tcp".
func exposed(arg string) ([]string, error) {
	numbers, proto, ok := strings.Cut(arg, "/")
	if !ok {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fmt.Errorf("port %q: protocol must be tcp, udp or sctp: %w", arg, image.ErrInvalid)
	}
	from, to, ranged := strings.Cut(numbers, "-")
	if !ranged {
		to = from
	}
	first, err1 := portNumber(from)
	last, err2 := portNumber(to)
	if err1 != nil || err2 != nil || last < first {
		return nil, fmt.Errorf("port %q: want a number from 1 to 65535 or a range of them: %w", arg, image.ErrInvalid)
	}
	var all []string
	for p := first; p <= last; p++ {
		all = append(all, fmt.Sprintf("%d/%s", p, proto))
	}
	return all, nil
}

// commandLine is a CMD or ENTRYPOINT as the config keeps it.
func (st *stage) commandLine(line instructions.ShellDependantCmdLine) []string {
	if line.PrependShell {
		return append(slices.Clone(st.shell), strings.Join(line.CmdLine, " "))
	}
	return line.CmdLine
}

// setEnv replaces or appends a variable.
func setEnv(env []string, key, value string) []string {
	kv := key + "=" + value
	for i, e := range env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			env[i] = kv
			return env
		}
	}
	return append(env, kv)
}

// resolve makes a path absolute in the image.
func (st *stage) resolve(p string) string {
	if !path.IsAbs(p) {
		p = path.Join("/", st.config.Config.WorkingDir, p)
	}
	return path.Clean(p)
}

// workdir sets the working directory, and makes it, the user's, unless it is there.
func (b *builder) workdir(ctx context.Context, st *stage, cmd *instructions.WorkdirCommand) (bool, error) {
	dir := st.resolve(cmd.Path)
	st.config.Config.WorkingDir = dir
	if dir == "/" {
		return false, nil
	}
	if len(dir) > image.MaxPath {
		return false, fmt.Errorf("a directory of %d bytes, at most %d: %w", len(dir), image.MaxPath, image.ErrTooLarge)
	}
	user := st.config.Config.User
	return b.layer(ctx, st, change{
		instruction: fmt.Sprintf("WORKDIR %q %q", dir, user),
		write: func(w *layerWriter) (err error) {
			v, err := b.view(ctx, st.layers)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.Close()) }()
			real, err := v.destination(dir)
			if err != nil {
				return err
			}
			missing, err := v.missing(real)
			if err != nil || len(missing) == 0 {
				return err
			}
			run := Run{User: user}
			if err := v.process(&run); err != nil {
				return fmt.Errorf("USER %s: %w", user, err)
			}
			for _, p := range missing {
				if err := w.parent(p, owner{uid: int(run.UID), gid: int(run.GID), parent: 0o755}); err != nil {
					return err
				}
			}
			return nil
		},
	})
}
