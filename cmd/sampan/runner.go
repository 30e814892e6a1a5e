package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/container"
)

// runner executes the RUNs of one build, with a keeper of the build's own: a
// cluster that runs beside it is not touched, and none is needed. The keeper
// starts with the first RUN.
func runner(s cli.Settings) (build.Runner, func() error, error) {
	l := &lazyRunner{settings: s, name: fmt.Sprint(os.Getpid())}
	return l, l.close, nil
}

type lazyRunner struct {
	settings cli.Settings
	name     string

	opening sync.Once
	failed  error
	runtime *container.Runtime
}

// Run implements build.Runner. Stages run beside each other.
func (l *lazyRunner) Run(ctx context.Context, r build.Run) error {
	l.opening.Do(func() { l.failed = l.open() })
	if l.failed != nil {
		return l.failed
	}
	return build.Sandbox{Runtime: l.runtime}.Run(ctx, r)
}

func (l *lazyRunner) dirs() (root, run string) {
	return filepath.Join(l.settings.DataDir, "build", "run-"+l.name), filepath.Join(l.settings.RunDir, "b"+l.name)
}

func (l *lazyRunner) cgroup() string { return l.settings.Cgroup() + "/build-" + l.name }

func (l *lazyRunner) open() error {
	root, run := l.dirs()
	var err error
	l.runtime, err = container.Open(container.Config{
		Root: root, Run: run, Keeper: container.Sealed(keeper), Cgroup: l.cgroup(), Log: slog.New(slog.DiscardHandler),
	})
	return err
}

// close ends the keeper and removes its state.
func (l *lazyRunner) close() error {
	if l.runtime == nil {
		return nil
	}
	root, run := l.dirs()
	return errors.Join(l.runtime.Shutdown(context.Background()), l.runtime.Close(), removeCgroups(l.cgroup()),
		os.RemoveAll(root), os.RemoveAll(run))
}
