// Command oci is an OCI runtime's command line, for containerd, CRI-O, Podman and
// whoever else starts containers with runc or crun. It is a program of its own,
// which sampan carries, because it is started several times a container: the
// whole of sampan takes longer to start than a container does.
//
// The flags are those that runc and crun share. What a container's life is made
// of is node/container's; here are words and exit codes only.
//
// Go's runtime need not find out how much processor its cgroup has.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/sampan-dev/sampan/node/container"
)

// defaultRoot is where state lives unless --root says otherwise.
const defaultRoot = "/run/sampan-oci"

// defaultCgroup is the parent of containers whose spec names no cgroup.
const defaultCgroup = "/sampan-oci"

func main() {
	begin()
	os.Exit(run(os.Args[1:]))
}

// program is one invocation.
type program struct {
	oci *container.OCI
	ctx context.Context
	// log is closed at the end; nil is stderr.
	log io.WriteCloser
}

// exit is an error that is nothing but the exit code of a container's process.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failure is an error with an exit code of its own.
type failure struct {
	code int
	err  error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// Exit codes of a command that did not do what it was asked for: that of exec can be told
// from its process's own, and is runc's.
const (
	failed     = 1
	execFailed = 255
)

type command struct {
	run   func(p *program, args []string) error
	usage string
}

// commands are the verbs.
func commands() map[string]command {
	return map[string]command{
		"create":     {create, "create [--bundle DIR] [--pid-file FILE] [--console-socket PATH] [--preserve-fds N] ID"},
		"run":        {runContainer, "run [--detach] [--keep] [the flags of create] ID"},
		"start":      {start, "start ID"},
		"state":      {state, "state ID"},
		"list":       {list, "list [--quiet] [--format table|json]"},
		"kill":       {kill, "kill [--all] ID [SIGNAL]"},
		"delete":     {remove, "delete [--force] ID"},
		"exec":       {exec, "exec [--process FILE] [--detach] [--tty] [--cwd DIR] [--env K=V] [--user UID[:GID]] ID [COMMAND...]"},
		"ps":         {ps, "ps [--format table|json] ID"},
		"pause":      {pause, "pause ID"},
		"resume":     {resume, "resume ID"},
		"update":     {update, "update [--resources FILE] [--memory N] [--cpu-quota N] [--pids-limit N] ... ID"},
		"events":     {events, "events [--stats] [--interval DURATION] ID"},
		"checkpoint": {checkpoint, "checkpoint [--image-path DIR] [--work-path DIR] [--leave-running] [--tcp-established] [--pre-dump] ... ID"},
		"restore":    {restore, "restore --detach [--bundle DIR] [--image-path DIR] [--work-path DIR] [--pid-file FILE] ... ID"},
		"features":   {features, "features"},
		"spec":       {spec, "spec [--bundle DIR]"},
	}
}

func run(args []string) int {
	p := &program{ctx: context.Background(), oci: &container.OCI{Root: defaultRoot, Cgroup: defaultCgroup}}
	err := p.main(args)
	var code exit
	if errors.As(err, &code) {
		return int(code)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if p.log != nil {
		p.oci.Log.Error(err.Error())
		p.log.Close()
	}
	fmt.Fprintln(os.Stderr, "sampan oci:", err)
	var f failure
	if errors.As(err, &f) {
		return f.code
	}
	return failed
}

// main reads the flags before the verb, and calls it.
func (p *program) main(args []string) error {
	f := flags("oci", "[--root DIR] [--log FILE] [--log-format text|json] COMMAND ...")
	f.StringVar(&p.oci.Root, "root", defaultRoot, "directory of the containers' state")
	log := f.String("log", "", "file for log lines; stderr when empty")
	format := f.String("log-format", "text", "text or json")
	debugging := f.Bool("debug", false, "log more")
	systemd := f.Bool("systemd-cgroup", false, "refused: cgroups are made without systemd")
	version := f.Bool("version", false, "show the version")
	f.BoolVar(version, "v", false, "show the version")
	for _, ignored := range []string{"criu", "rootless", "cgroup-manager"} {
		f.String(ignored, "", "accepted and ignored")
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if *version {
		return showVersion()
	}
	if err := p.openLog(*log, *format, *debugging); err != nil {
		return err
	}
	if *systemd {
		return errors.New("--systemd-cgroup: cgroups are not made through systemd here: choose the cgroupfs driver " +
			"(containerd: SystemdCgroup = false; Podman: --cgroup-manager=cgroupfs)")
	}
	if f.NArg() == 0 {
		return usage()
	}
	c, ok := commands()[f.Arg(0)]
	if !ok {
		return fmt.Errorf("no such command: %q", f.Arg(0))
	}
	return c.run(p, f.Args()[1:])
}

// flags is an empty set; errors come back, and are printed once.
func flags(name, line string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {
		fmt.Println("usage: sampan oci", line)
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
	}
	return f
}

// verb is the flag set of a command.
func verb(name string) *flag.FlagSet { return flags(name, commands()[name].usage) }

// parse reads flags that may stand before and after the arguments, of which there
// are between least and most.
func parse(f *flag.FlagSet, args []string, least, most int) ([]string, error) {
	var out []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if f.NArg() == 0 {
			break
		}
		out, args = append(out, f.Arg(0)), f.Args()[1:]
	}
	if len(out) < least || len(out) > most {
		return nil, fmt.Errorf("usage: %s", commands()[f.Name()].usage)
	}
	return out, nil
}

// one is parse for a command whose only argument is a container.
func one(f *flag.FlagSet, args []string) (string, error) {
	ids, err := parse(f, args, 1, 1)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

func usage() error {
	var lines []string
	for _, name := range []string{"create", "start", "run", "exec", "state", "list", "ps", "kill", "delete", "pause", "resume", "update", "checkpoint", "restore", "events", "features", "spec"} {
		lines = append(lines, "  "+commands()[name].usage)
	}
	fmt.Println("sampan oci is an OCI runtime: runc's and crun's command line.\n\n" + strings.Join(lines, "\n"))
	return nil
}

// openLog makes log lines as those read them who start runtimes: level in lower
// case, the text under msg.
func (p *program) openLog(path, format string, debugging bool) error {
	to := io.Writer(os.Stderr)
	level := slog.LevelWarn
	if debugging {
		level = slog.LevelDebug
	}
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("--log: %w", err)
		}
		p.log, to = f, f
	}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			a.Value = slog.StringValue(strings.Replace(strings.ToLower(a.Value.String()), "warn", "warning", 1))
		}
		return a
	}}
	switch format {
	case "json":
		p.oci.Log = slog.New(slog.NewJSONHandler(to, o))
	case "text", "":
		p.oci.Log = slog.New(slog.NewTextHandler(to, o))
	default:
		return fmt.Errorf("--log-format %q: must be text or json", format)
	}
	return nil
}

// needs checks what every command that touches processes must have, and loads
// the keeper for those that start some.
func (p *program) needs() error {
	if os.Geteuid() != 0 {
		return errors.New("containers need namespaces, mounts and cgroups, which only root may make: run this as root")
	}
	p.oci.Keeper = keeper
	return nil
}

// printJSON shows v as people read it.
func printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(b))
	return err
}
