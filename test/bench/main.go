// Command bench measures sampan on this machine: how fast it starts, how fast a
// pod runs, what it weighs when idle, and how much of the store's own speed its
// API keeps. It prints a table; absolute times belong to the machine, ratios to
// the program. It runs as root in a network namespace of its own.
//
//	go run ./test/bench [-only oci,cri,density,unpack,pull,build,start,pods,idle,writes,requests,lists,watches,storm,schedule,scale,size]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

// row is one line of the table.
type row struct{ what, value, aim string }

// measurement is one part of the benchmark.
type measurement struct {
	name string
	run  func(ctx context.Context) ([]row, error)
}

var measurements = []measurement{
	{"oci", oci}, {"cri", criCase}, {"density", density}, {"unpack", unpack}, {"pull", pull}, {"build", build}, {"start", start}, {"pods", pods}, {"idle", idle}, {"writes", writes}, {"requests", requests}, {"lists", lists}, {"watches", watches},
	{"storm", storm}, {"schedule", schedule}, {"scale", scale}, {"size", weight},
}

// inside marks the process that is in the namespace already.
const inside = "SAMPAN_BENCH_INSIDE"

func main() {
	only := flag.String("only", "", "comma-separated: oci, cri, density, unpack, pull, build, start, pods, idle, writes, requests, lists, watches, storm, schedule, scale, size")
	flag.Parse()
	if os.Getenv(serving) != "" {
		if err := serve(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "bench: server:", err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(engineIn); dir != "" {
		if err := serveEngine(dir); err != nil {
			fmt.Fprintln(os.Stderr, "bench: engine:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(inside) == "" {
		os.Exit(again(*only))
	}
	os.Exit(run(*only))
}

// run measures what only names, or everything; it gives the exit code.
func run(only string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := all(ctx, only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// again runs this program in a network namespace of its own, so that nothing of
// the host's network changes. It is in a process group of its own as well: whatever ends
// this one, all of the group even, that one is told and removes what it has made.
func again(only string) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: a cluster wants root")
		return 1
	}
	dir, err := os.MkdirTemp("", "sampan-bench-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	busybox := ""
	if wantsBusybox(only) {
		if busybox, err = findBusybox(dir); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1", busyboxEnv+"="+busybox)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM, Setpgid: true}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	runtime.LockOSThread() // whose end would be taken for the process's
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	if err := cmd.Wait(); err != nil {
		return 1
	}
	return 0
}

func all(ctx context.Context, only string) error {
	if err := loopback(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEASURED\tAIM")
	for _, m := range measurements {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		rows, failed := m.run(ctx)
		for _, r := range rows { // what was measured before it failed is true as well
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.what, r.value, r.aim)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if failed != nil {
			return fmt.Errorf("%s: %w", m.name, failed)
		}
	}
	return nil
}
