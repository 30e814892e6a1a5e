package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/sampan-dev/sampan/node/image"
)

// runTail is how much of a failed command's output its error repeats, in bytes.
const runTail = 2048

// defaultPath is where programs are found when nothing says so.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// runCommand executes RUN and keeps what it changed as a layer.
func (b *builder) runCommand(ctx context.Context, st *stage, s step, cmd *instructions.RunCommand) (bool, error) {
	if b.opts.Runner == nil {
		return false, fmt.Errorf("RUN needs root and a Linux machine: %w", ErrUnsupported)
	}
	if instructions.GetSecurity(cmd) == instructions.SecurityInsecure && !b.opts.Insecure {
		return false, fmt.Errorf("RUN --security=insecure gives the command this machine: allow it with --allow security.insecure: %w", image.ErrDenied)
	}
	devices, err := b.devices(s, instructions.GetDevices(cmd))
	if err != nil {
		return false, err
	}
	run, files, err := b.command(st, cmd)
	if err != nil {
		return false, err
	}
	run.Devices = devices
	mounts := instructions.GetMounts(cmd)
	content, err := b.mountKey(ctx, st, mounts)
	if err != nil {
		return false, err
	}
	for _, f := range files {
		content = digestOf(content, f.path, f.data)
	}
	c := change{
		instruction: fmt.Sprintf("RUN %s %q %q %q %q %v", st.platform, run.Args, run.Env, run.User, run.WorkingDir, run.NetworkNone),
		content:     content,
	}
	if run.Insecure {
		c.instruction += " insecure"
	}
	if len(devices) > 0 {
		c.instruction += fmt.Sprintf(" devices %q", devices)
	}
	if len(b.opts.Ulimits) > 0 || b.opts.ShmSize != 0 {
		c.instruction += fmt.Sprintf(" %v %d", b.opts.Ulimits, b.opts.ShmSize)
	}
	if len(b.opts.Hosts) > 0 {
		c.instruction += fmt.Sprintf(" %q", b.opts.Hosts)
	}
	if run.Hostname != "" {
		c.instruction += fmt.Sprintf(" host %q", run.Hostname)
	}
	b.proxies(&run)
	return b.cached(ctx, st, c, func() (image.Layer, error) {
		return b.execute(ctx, st, execution{step: s, run: run, mounts: mounts, files: files})
	})
}

// inline is a script of a heredoc that is to be a file.
type inline struct{ path, data string }

// command is the process that a RUN asks for.
func (b *builder) command(st *stage, cmd *instructions.RunCommand) (Run, []inline, error) {
	c := st.config.Config
	network := instructions.GetNetwork(cmd)
	run := Run{
		WorkingDir: cmp.Or(c.WorkingDir, "/"), User: c.User,
		NetworkNone: network == instructions.NetworkNone || b.opts.NetworkNone && network == instructions.NetworkDefault,
		Insecure:    instructions.GetSecurity(cmd) == instructions.SecurityInsecure,
		Ulimits:     b.opts.Ulimits, ShmSize: b.opts.ShmSize, Hostname: b.opts.Args[argHostname],
	}
	line, files, err := heredocs(cmd)
	if err != nil {
		return run, nil, err
	}
	run.Args = line
	if cmd.PrependShell && len(files) == 0 {
		run.Args = append(slices.Clone(st.shell), strings.Join(line, " "))
	}
	env := slices.Clone(c.Env)
	has := func(k string) bool {
		return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, k+"=") })
	}
	for _, k := range slices.Sorted(maps.Keys(st.args)) {
		if !has(k) {
			env = append(env, k+"="+st.args[k])
		}
	}
	if !has("PATH") {
		env = append(env, defaultPath)
	}
	run.Env = env
	return run, files, nil
}

// heredocs are the command line and files of a RUN with heredocs, which is a
// script to be run, a script with an interpreter of its own, or input of a command.
func heredocs(cmd *instructions.RunCommand) ([]string, []inline, error) {
	line := slices.Clone(cmd.CmdLine)
	if len(cmd.Files) == 0 {
		return line, nil, nil
	}
	if len(line) != 1 || !cmd.PrependShell {
		return nil, nil, fmt.Errorf("heredocs are for the shell form alone: %w", image.ErrInvalid)
	}
	only, err := parser.ParseHeredoc(line[0])
	if err != nil {
		return nil, nil, err
	}
	if only == nil {
		full := line[0]
		for _, f := range cmd.Files {
			full += "\n" + f.Data + f.Name
		}
		return []string{full}, nil, nil
	}
	data := cmd.Files[0].Data
	if cmd.Files[0].Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if strings.HasPrefix(data, "#!") {
		at := "/dev/pipes/" + path.Base(cmd.Files[0].Name)
		return []string{at}, []inline{{path: at, data: data}}, nil
	}
	return []string{data}, nil, nil
}

// proxies adds the proxy settings that were given, in capitals and not, as some
// programs read the one and some the other; what is declared is not changed.
func (b *builder) proxies(run *Run) {
	add := func(k, value string) {
		if !slices.ContainsFunc(run.Env, func(kv string) bool { return strings.HasPrefix(kv, k+"=") }) {
			run.Env = append(run.Env, k+"="+value)
		}
	}
	given := slices.DeleteFunc(slices.Sorted(maps.Keys(b.opts.Args)), func(k string) bool { return !isProxy(k) })
	for _, k := range given {
		add(k, b.opts.Args[k])
	}
	for _, k := range given {
		add(strings.ToUpper(k), b.opts.Args[k])
		add(strings.ToLower(k), b.opts.Args[k])
	}
}

// execution is one RUN to be run.
type execution struct {
	step   step
	run    Run
	mounts []*instructions.Mount
	files  []inline
}

// engineFiles are what every RUN finds, whatever the image has.
var engineFiles = []string{"/proc", "/dev", "/sys", "/etc/resolv.conf", "/etc/hosts"} //nolint:gochecknoglobals // a constant list

// execute runs the command over the stage's layers and packs its changes.
func (b *builder) execute(ctx context.Context, st *stage, e execution) (_ image.Layer, err error) {
	run := e.run
	lower, err := b.content.Unpack(ctx, st.layers)
	if err != nil {
		return image.Layer{}, err
	}
	if len(lower) == 0 {
		return image.Layer{}, fmt.Errorf("RUN in an image without files: %w", image.ErrInvalid)
	}
	// Beside the cache: overlayfs cannot have its upper directory on overlayfs,
	// which a temporary directory may be.
	work, err := newWorkDir(b.opts.Cache, runDirs)
	if err != nil {
		return image.Layer{}, err
	}
	defer func() { err = errors.Join(err, work.close()) }()
	dir := work.path
	all, err := b.mount(ctx, st, e.mounts, dir)
	if err != nil {
		return image.Layer{}, err
	}
	defer func() { err = errors.Join(err, all.close()) }() // before the directory goes
	for i, f := range e.files {
		at := filepath.Join(dir, fmt.Sprintf("inline%d", i))
		if err := os.WriteFile(at, []byte(f.data), 0o755); err != nil { //nolint:gosec // it is a program
			return image.Layer{}, err
		}
		all.mounts = append(all.mounts, Mount{Source: at, Target: f.path, ReadOnly: true})
	}
	if err := b.hosts(all, dir, run); err != nil {
		return image.Layer{}, err
	}
	run.Mounts, run.Env = all.mounts, append(slices.Clone(run.Env), all.env...)
	missing, err := b.examine(ctx, st, &run)
	if err != nil {
		return image.Layer{}, err
	}
	run.Lower, run.Upper, run.Work = lower, filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{run.Upper, run.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return image.Layer{}, err
		}
	}
	if err := b.perform(ctx, e.step, run); err != nil {
		return image.Layer{}, st.platform.foreign(err)
	}
	if err := sweepStubs(run.Upper, missing); err != nil {
		return image.Layer{}, err
	}
	return b.pack(ctx, run.Upper)
}

// hosts gives a RUN an /etc/hosts that knows its own name, and has the lines that were
// asked for.
func (b *builder) hosts(all *mounted, dir string, run Run) error {
	known, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines := append([]string{strings.TrimRight(string(known), "\n"), "127.0.0.1 " + cmp.Or(run.Hostname, defaultHostname)}, b.opts.Hosts...)
	text := strings.TrimLeft(strings.Join(lines, "\n"), "\n") + "\n"
	at := filepath.Join(dir, "hosts")
	all.mounts = append(all.mounts, Mount{Source: at, Target: "/etc/hosts", ReadOnly: true})
	return os.WriteFile(at, []byte(text), 0o644) //nolint:gosec // every user of the container reads it
}

// perform runs the command, passes on what it prints, and keeps the end of it.
func (b *builder) perform(ctx context.Context, s step, run Run) error {
	var tail []byte
	run.Output = func(p []byte) {
		tail = append(tail, p...)
		tail = tail[max(0, len(tail)-runTail):]
		event := s.event
		event.Output = p
		b.opts.Progress(event)
	}
	err := b.opts.Runner.Run(ctx, run)
	var exit *ExitError
	if errors.As(err, &exit) {
		exit.Tail = string(tail)
	}
	return err
}

// examine looks into the image for the user's IDs, and for the places of mounts
// that it does not have.
func (b *builder) examine(ctx context.Context, st *stage, run *Run) (missing []string, err error) {
	v, err := b.view(ctx, st.layers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := v.process(run); err != nil {
		return nil, fmt.Errorf("USER %s: %w", run.User, err)
	}
	targets := slices.Clone(engineFiles)
	for _, m := range run.Mounts {
		targets = append(targets, m.Target)
	}
	return stubs(v, targets)
}

// process finds the IDs of a USER ("name", "name:group" or numbers) in the image,
// and its further groups when it names none itself.
//
// Its group is among the further ones: a process could give it up otherwise, and with it
// what files deny to that group (CVE-2023-25173).
func (v *view) process(run *Run) error {
	name := cmp.Or(run.User, "0")
	user, group, hasGroup := strings.Cut(name, ":")
	o, err := transfer{chown: name}.owner(v)
	if err != nil {
		return err
	}
	if _, err := strconv.Atoi(user); err == nil && !hasGroup {
		o.gid = 0 // a bare number has the group that the image gives it, or none
		if fields, err := v.line("/etc/passwd", func(f []string) bool { return len(f) > 3 && f[2] == user }); err == nil {
			user = fields[0]
			if o.gid, err = strconv.Atoi(fields[3]); err != nil {
				return err
			}
		}
	}
	if !hasGroup || group == "" {
		run.Groups = v.groups(user)
	}
	run.UID, run.GID = uint32(o.uid), uint32(o.gid) //nolint:gosec // both come from 32-bit columns or fail in the kernel
	if !slices.Contains(run.Groups, run.GID) {
		run.Groups = append([]uint32{run.GID}, run.Groups...)
	}
	return nil
}
