// Command sampan is the whole of Kubernetes in one program. This package joins
// the parts and holds no logic of its own: what a cluster is made of, and in
// which order it starts, can be read here from the top.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/cmd/sampan/shortcut"
)

// version is set by the linker for releases.
var version = "v0.1.0-dev"

// The main thread stays with the main goroutine. A goroutine that has changed
// its thread's namespace ends together with that thread, and when it is the main
// one, /proc/self would show the wrong namespaces for good.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // only an init runs on the main thread for certain

func main() { os.Exit(run()) }

// run is the program; it gives the exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	program := cli.Program{
		Version: "sampan " + version + " (Kubernetes v1.37)",
		Up:      up,
		Join:    join,
		Down:    down,
		Restore: restore,
		Runner:  runner,
		Graph:   graph, Simulate: simulate, Hollow: hollowNodes, Engine: engineAlone,
		Kubectl: kubectl, Signal: signalPod, Process: podProcess,
		OCI: shortcut.Run, WriteOCI: shortcut.Write,
	}
	err := cli.New(program).ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0 // to be stopped is no failure
	}
	var exit *cli.ExitError
	if errors.As(err, &exit) && exit.Err == nil {
		return exit.Code
	}
	fmt.Fprintln(os.Stderr, "sampan:", err)
	if exit != nil {
		return exit.Code
	}
	return 1
}
