// Program run tells how much of Kubernetes' conformance suite a Sampan passes: it
// starts a cluster of two nodes in network namespaces of its own, loads the images that specs
// need, runs the specs of specs.txt that --focus selects, and writes what came out.
//
// A spec that passed is added to passing.txt, which only grows; a spec of
// passing.txt that fails makes the run fail. waiting.txt has the specs that cannot
// pass yet, each with its reason.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// config is what the flags say.
type config struct {
	// sampan and kubectl are the programs under test, suite upstream's specs as a
	// test binary, images the archive of what they need.
	sampan, kubectl, suite, images string
	// data is the cluster's --data-dir, report the folder for what comes out.
	data, report string
	// lists is the folder of specs.txt, passing.txt and waiting.txt.
	lists string
	// focus and skip select specs by regular expression.
	focus, skip string
	// limit bounds one spec.
	limit time.Duration
	// workers is how many specs run at a time; [Serial] ones always run alone.
	workers int
	// here runs the cluster in this network namespace, keep leaves it running
	// afterwards, failing leaves out what passing.txt has.
	here, keep, failing bool
	// record writes passing.txt and waiting.txt.
	record bool
	// other is the network namespace of the second node.
	other netns.NsHandle
}

func main() {
	c := config{other: netns.None()}
	flag.StringVar(&c.sampan, "sampan", "../../bin/sampan", "the program under test")
	flag.StringVar(&c.kubectl, "kubectl", "../../bin/kubectl", "the kubectl that sig-cli's specs run")
	flag.StringVar(&c.suite, "suite", "../../bin/conformance/suite.test", "upstream's suite")
	flag.StringVar(&c.images, "images", "../../bin/conformance/images.tar", "archive of the specs' images")
	flag.StringVar(&c.data, "data-dir", "/var/tmp/sampan-conformance", "the cluster's state")
	flag.StringVar(&c.report, "report", "../../bin/conformance/report", "directory for logs, results.json and junit.xml")
	flag.StringVar(&c.lists, "lists", ".", "directory of specs.txt, passing.txt and waiting.txt")
	flag.StringVar(&c.focus, "focus", "", "regular expression of specs to run (default: all that do not wait)")
	flag.StringVar(&c.skip, "skip", "", "regular expression of specs to leave out")
	flag.DurationVar(&c.limit, "limit", 5*time.Minute, "how long one spec may take")
	flag.IntVar(&c.workers, "workers", 2, "how many specs run at a time")
	flag.BoolVar(&c.here, "here", false, "stay in this network namespace")
	flag.BoolVar(&c.keep, "keep", false, "use a running cluster, and leave it running")
	flag.BoolVar(&c.failing, "failing", false, "only what is not in passing.txt")
	flag.BoolVar(&c.record, "record", true, "write passing.txt and waiting.txt")
	flag.Parse()
	log.SetFlags(log.Ltime)
	if err := c.run(); err != nil {
		log.Fatal(err)
	}
}

func (c *config) run() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs namespaces, mounts and cgroups, which only root may make")
	}
	if !c.here {
		return elsewhere()
	}
	for _, path := range []*string{&c.sampan, &c.kubectl, &c.suite, &c.images, &c.report} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	selected, lists, err := c.selected()
	if err != nil {
		return err
	}
	if len(selected) == 0 {
		return errors.New("no spec is selected")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.start(ctx); err != nil {
		return errors.Join(err, c.down())
	}
	results := c.specs(ctx, selected)
	if err := c.down(); err != nil {
		log.Print("the cluster does not end: ", err)
	}
	return c.conclude(lists, results)
}

// selected are the specs to run, in the list's order.
func (c *config) selected() ([]string, lists, error) {
	l, err := readLists(c.lists)
	if err != nil {
		return nil, l, err
	}
	focus, err := regexp.Compile(c.focus)
	if err != nil {
		return nil, l, err
	}
	skip, err := regexp.Compile(c.skip)
	if err != nil {
		return nil, l, err
	}
	var found []string
	for _, spec := range l.specs {
		_, waits := l.waiting[spec]
		switch {
		case !focus.MatchString(spec), c.skip != "" && skip.MatchString(spec), c.focus == "" && waits, c.failing && l.passing[spec]:
		default:
			found = append(found, spec)
		}
	}
	return found, l, nil
}

// elsewhere runs this program again in namespaces of its own for network and
// mounts, as if on another machine.
func elsewhere() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The parent's death signal is the thread's: stay on it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(self, append([]string{"-here"}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), uplinkEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	// An interrupt from the terminal reaches the child too, which cleans up.
	signal.Ignore(os.Interrupt)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the run in its own network namespace: %w", err)
	}
	return nil
}
