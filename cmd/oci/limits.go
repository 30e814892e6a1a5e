package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func list(p *program, args []string) error {
	f := verb("list")
	format := f.String("format", "table", "table or json")
	f.StringVar(format, "f", "table", "table or json")
	quiet := f.Bool("quiet", false, "names only")
	f.BoolVar(quiet, "q", false, "names only")
	if _, err := parse(f, args, 0, 0); err != nil {
		return err
	}
	if _, err := os.Stat(p.oci.Root); err != nil && p.oci.Root != defaultRoot {
		return fmt.Errorf("list: --root: %w", err) // the default one is made by the first container
	}
	all, err := p.oci.List()
	if err != nil {
		return err
	}
	if *format == "json" && !*quiet {
		out := make([]fullState, 0, len(all))
		for _, s := range all {
			out = append(out, p.full(s))
		}
		return json.NewEncoder(os.Stdout).Encode(out)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	if !*quiet {
		fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	}
	for _, s := range all {
		if *quiet {
			fmt.Fprintln(w, s.ID)
		} else {
			s := p.full(s)
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
	}
	return w.Flush()
}

// ps prints pids as JSON, or those lines of the host's ps that are about them.
func ps(p *program, args []string) error {
	f := verb("ps")
	format := f.String("format", "table", "table or json")
	f.StringVar(format, "f", "table", "table or json")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return fmt.Errorf("usage: %s", commands()["ps"].usage)
	}
	id, options := f.Arg(0), f.Args()[1:]
	if len(options) > 1 && (options[0] == "--format" || options[0] == "-f") {
		*format, options = options[1], options[2:]
	}
	pids, err := p.oci.Processes(id)
	if err != nil {
		return err
	}
	if *format == "json" {
		if pids == nil {
			pids = []int{}
		}
		return json.NewEncoder(os.Stdout).Encode(pids)
	}
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := osexec.CommandContext(p.ctx, "ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ps: %w: %s", err, out)
	}
	return psLines(os.Stdout, string(out), pids)
}

// psLines keeps the title and the lines of the processes.
func psLines(w io.Writer, out string, pids []int) error {
	title, rest, _ := strings.Cut(out, "\n")
	column := -1
	for i, name := range strings.Fields(title) {
		if name == "PID" {
			column = i
		}
	}
	if column < 0 {
		return fmt.Errorf("ps prints no PID: %q", title)
	}
	wanted := map[string]bool{}
	for _, pid := range pids {
		wanted[strconv.Itoa(pid)] = true
	}
	fmt.Fprintln(w, title)
	for line := range strings.Lines(rest) {
		if fields := strings.Fields(line); len(fields) > column && wanted[fields[column]] {
			fmt.Fprint(w, line)
		}
	}
	return nil
}

func pause(p *program, args []string) error {
	id, err := one(verb("pause"), args)
	if err != nil {
		return err
	}
	return p.oci.Pause(id)
}

func resume(p *program, args []string) error {
	id, err := one(verb("resume"), args)
	if err != nil {
		return err
	}
	return p.oci.Resume(id)
}

// number is a flag that sets a pointer when it is given.
func number[T int64 | uint64](f *flag.FlagSet, name string, to func(T)) {
	f.Func(name, "a number", func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		to(T(n))
		return nil
	})
}

// size is number for bytes, which people like to say with a unit: 50M is 50 MiB.
func size(f *flag.FlagSet, name string, to func(int64)) {
	f.Func(name, "bytes, or with k, m, g or t after the number; -1 for no limit", func(s string) error {
		n, err := parseSize(s)
		if err == nil {
			to(n)
		}
		return err
	})
}

// parseSize reads a number of bytes as runc does, whose units are powers of 1024.
func parseSize(s string) (int64, error) {
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i")
	shift := 0
	if i := strings.IndexAny(digits, "kmgt"); i >= 0 && i == len(digits)-1 {
		shift = 10 * (1 + strings.IndexByte("kmgt", digits[i]))
		digits = digits[:i]
	} else if strings.HasSuffix(strings.ToLower(s), "ib") {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64>>shift || n < 0 && (shift > 0 || n < -1) {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}

func update(p *program, args []string) error {
	f := verb("update")
	r := specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}}
	file := f.String("resources", "", "file with resources as in config.json; - is stdin")
	f.StringVar(file, "r", "", "file with resources as in config.json; - is stdin")
	size(f, "memory", func(n int64) { r.Memory.Limit = &n })
	size(f, "memory-reservation", func(n int64) { r.Memory.Reservation = &n })
	size(f, "memory-swap", func(n int64) { r.Memory.Swap = &n })
	number(f, "cpu-quota", func(n int64) { r.CPU.Quota = &n })
	number(f, "cpu-period", func(n uint64) { r.CPU.Period = &n })
	number(f, "cpu-share", func(n uint64) { r.CPU.Shares = &n })
	number(f, "cpu-burst", func(n uint64) { r.CPU.Burst = &n })
	number(f, "cpu-idle", func(n int64) { r.CPU.Idle = &n })
	number(f, "cpu-rt-period", func(n uint64) { r.CPU.RealtimePeriod = &n })
	number(f, "cpu-rt-runtime", func(n int64) { r.CPU.RealtimeRuntime = &n })
	number(f, "blkio-weight", func(n uint64) {
		weight := uint16(min(n, 1<<16-1)) // the kernel says what is too much
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	})
	number(f, "pids-limit", func(n int64) { r.Pids = &specs.LinuxPids{Limit: &n} })
	f.StringVar(&r.CPU.Cpus, "cpuset-cpus", "", "processors")
	f.StringVar(&r.CPU.Mems, "cpuset-mems", "", "memory nodes")
	id, err := one(f, args)
	if err != nil {
		return err
	}
	if *file != "" {
		if err := readResources(*file, &r); err != nil {
			return err
		}
	}
	return p.oci.Update(id, &r)
}

// maxResources bounds what update reads.
const maxResources = 1 << 20

func readResources(path string, r *specs.LinuxResources) error {
	in := os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if err := json.NewDecoder(io.LimitReader(in, maxResources)).Decode(r); err != nil {
		return fmt.Errorf("--resources %q: %w", path, err)
	}
	return nil
}
