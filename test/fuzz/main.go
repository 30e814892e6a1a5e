// Command fuzz fuzzes every decoder that an outsider can reach:
//
//	go run ./test/fuzz [-time 20s] [-run REGEXP] [-jobs N] [FOLDER…]
//
// It finds the targets by itself, builds each package once with coverage, and fuzzes
// as many targets at once as there are processors, with one worker each. The time of a
// target begins when its seeds, and what earlier runs found interesting (Go keeps it
// in its cache), have been tried. An input that fails is printed, kept in the
// package's testdata/fuzz (commit it with the repair), and tried once more by itself,
// so that a hang shows its stacks; a target that fails with no such input is fuzzed
// once more. Nothing here waits for ever.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// buildWait bounds the building of one package, from nothing.
const buildWait = 20 * time.Minute

func main() {
	each := flag.Duration("time", 20*time.Second, "how long each target is fuzzed, after its seeds")
	which := flag.String("run", "", "fuzz only the targets whose folder and name (a/b:FuzzC) match this expression")
	jobs := flag.Int("jobs", runtime.NumCPU(), "how many targets are fuzzed at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *each, *which, *jobs, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, each time.Duration, which string, jobs int, folders []string) error {
	match, err := regexp.Compile(which)
	if err != nil {
		return err
	}
	if len(folders) == 0 {
		folders = []string{"."}
	}
	packages, err := find(folders, match)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	targets, err := build(ctx, packages, dir)
	if err != nil {
		return err
	}
	failed := fuzz(ctx, targets, each, jobs)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("of %d targets failed: %s", len(targets), strings.Join(failed, ", "))
	}
	fmt.Printf("%d targets, %v each: none failed\n", len(targets), each)
	return nil
}

// build builds the test binaries, one a package, and returns what is to be fuzzed.
func build(ctx context.Context, packages []found, dir string) ([]*target, error) {
	cache, err := output(ctx, "go", "env", "GOCACHE")
	if err != nil {
		return nil, err
	}
	var all []*target
	began := time.Now()
	for i, p := range packages {
		binary := filepath.Join(dir, fmt.Sprintf("%d.test", i))
		path, err := output(ctx, "go", "list", "./"+p.folder)
		if err != nil {
			return nil, err
		}
		if err := compile(ctx, p.folder, binary); err != nil {
			return nil, err
		}
		for _, name := range p.targets {
			all = append(all, &target{folder: p.folder, name: name, binary: binary, cache: filepath.Join(cache, "fuzz", path)})
		}
	}
	fmt.Printf("built %d packages in %v\n", len(packages), time.Since(began).Round(time.Second))
	return all, nil
}

func compile(ctx context.Context, folder, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, buildWait)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz=Fuzz", "-o", binary, "./"+folder).CombinedOutput(); err != nil {
		return fmt.Errorf("build the fuzz targets of %q: %w\n%s", folder, err, out)
	}
	return nil
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, exit.Stderr)
		}
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

// fuzz fuzzes the targets, jobs at once, tells of each when it is over, and returns
// the names of those that failed.
func fuzz(ctx context.Context, targets []*target, each time.Duration, jobs int) (failed []string) {
	var mu sync.Mutex // the output, and failed
	var all sync.WaitGroup
	next := make(chan *target)
	for range max(jobs, 1) {
		all.Go(func() {
			for t := range next {
				told, err := t.fuzz(ctx, each)
				mu.Lock()
				fmt.Printf("%s: %s\n", t, told)
				if err != nil && ctx.Err() == nil {
					failed = append(failed, t.String())
					fmt.Printf("--- FAIL: %v\n", err)
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range targets {
		if ctx.Err() == nil {
			next <- t
		}
	}
	close(next)
	all.Wait()
	return failed
}
