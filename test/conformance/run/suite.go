package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// A result is what came of one spec.
type result struct {
	Spec string `json:"spec"`
	// State is passed, failed, skipped (the spec said so itself) or timed out.
	State   string        `json:"state"`
	Took    time.Duration `json:"took"`
	Message string        `json:"message,omitempty"`
	// Output is what the spec wrote; it is in the JUnit file alone.
	Output string `json:"-"`
}

const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// batchSize is how many specs one process of the suite runs: the start of one
// costs a second, and a spec that takes minutes holds the others of its batch up.
const batchSize = 8

// specs runs the specs: those that bear company first, then the [Serial] ones.
func (c *config) specs(ctx context.Context, selected []string) []result {
	var together, alone []string
	for _, spec := range selected {
		if strings.Contains(spec, "[Serial]") {
			alone = append(alone, spec)
		} else {
			together = append(together, spec)
		}
	}
	results := c.parallel(ctx, together, c.workers)
	return append(results, c.parallel(ctx, alone, 1)...)
}

// parallel has workers take batches until none is left.
func (c *config) parallel(ctx context.Context, specs []string, workers int) []result {
	batches := make(chan []string, len(specs))
	for _, batch := range inBatches(specs) {
		batches <- batch
	}
	close(batches)
	var (
		results []result
		mu      sync.Mutex
		wg      sync.WaitGroup
	)
	for range workers {
		wg.Go(func() {
			for batch := range batches {
				got := c.batch(ctx, batch)
				mu.Lock()
				results = append(results, got...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return results
}

// inBatches puts specs together, but for [Slow] ones, which come first.
func inBatches(specs []string) (batches [][]string) {
	var rest []string
	for _, spec := range specs {
		if strings.Contains(spec, "[Slow]") {
			batches = append(batches, []string{spec})
		} else {
			rest = append(rest, spec)
		}
	}
	return slices.AppendSeq(batches, slices.Chunk(rest, batchSize))
}

// batch runs specs one after the other. A spec that takes too long ends its
// process of the suite, and the rest go on in another.
func (c *config) batch(ctx context.Context, specs []string) (all []result) {
	for len(specs) > 0 && ctx.Err() == nil {
		results, err := c.suiteProcess(ctx, specs)
		if err != nil {
			log.Print("suite: ", err)
		}
		if len(results) == 0 { // not even one: name the first, so that there is an end
			results = []result{{Spec: specs[0], State: failed, Message: fmt.Sprintf("the suite reported nothing: %v", err)}}
		}
		all = append(all, results...)
		specs = slices.DeleteFunc(slices.Clone(specs), func(spec string) bool {
			return slices.ContainsFunc(results, func(r result) bool { return r.Spec == spec })
		})
	}
	return all
}

// suiteProcess runs one process of the suite.
func (c *config) suiteProcess(ctx context.Context, specs []string) ([]result, error) {
	dir, err := os.MkdirTemp(c.report, "batch-")
	if err != nil {
		return nil, err
	}
	report := filepath.Join(dir, "report.json")
	args := []string{
		"--kubeconfig", c.kubeconfig(), "--provider", "skeleton", "--kubectl-path", c.kubectl,
		"--ginkgo.v", "--ginkgo.no-color", "--ginkgo.json-report", report, "--ginkgo.timeout", "24h", "--test.timeout", "0",
		"--ginkgo.grace-period", "30s", "--e2e-output-dir", dir, "--report-dir", dir, "--dump-logs-on-failure",
		"--node-schedulable-timeout", "1m", "--system-pods-startup-timeout", "1m",
	}
	for _, spec := range specs {
		args = append(args, "--ginkgo.focus", regexp.QuoteMeta(spec)+"$")
	}
	out, err := os.Create(filepath.Join(dir, "output.log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(c.suite, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = out
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.watch(ctx, cmd, io.TeeReader(lines, out))
	failure := cmd.Wait()
	results, err := read(report)
	if err != nil {
		return nil, fmt.Errorf("%w (the suite: %v; its output is in %s)", err, failure, dir)
	}
	return results, nil
}

// slowness is how much longer a [Slow] spec may take.
const slowness = 4

// finished is how ginkgo tells of a spec that has ended.
var finished = regexp.MustCompile(`^(•|S \[|P \[)`)

// watch reads the suite's output to its end, and interrupts it when a spec takes
// too long, or ctx ends.
func (c *config) watch(ctx context.Context, cmd *exec.Cmd, output io.Reader) {
	interrupt := func() { _ = cmd.Process.Signal(os.Interrupt) } // gone already
	timer := time.AfterFunc(c.limit, func() {
		log.Printf("a spec takes longer than %s: interrupted", c.limit)
		interrupt()
	})
	defer timer.Stop()
	defer context.AfterFunc(ctx, interrupt)()
	lines := bufio.NewReader(output)
	for {
		line, err := lines.ReadString('\n')
		switch {
		case strings.HasPrefix(line, "[sig-") && strings.Contains(line, "[Slow]"):
			timer.Reset(slowness * c.limit)
		case finished.MatchString(line):
			timer.Reset(c.limit)
		}
		if err != nil {
			return
		}
	}
}

// read takes the results out of ginkgo's report.
func read(path string) ([]result, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var reports []types.Report
	if err := json.Unmarshal(raw, &reports); err != nil {
		return nil, fmt.Errorf("report %s: %w", path, err)
	}
	var results []result
	for _, report := range reports {
		for _, s := range report.SpecReports {
			if s.LeafNodeType != types.NodeTypeIt || s.NumAttempts == 0 {
				continue
			}
			r := result{Spec: s.FullText(), State: s.State.String(), Took: s.RunTime, Message: s.Failure.Message, Output: s.CapturedGinkgoWriterOutput}
			if s.State == types.SpecStateInterrupted {
				r.State, r.Message = "timed out", where(s)
			}
			if s.State.Is(types.SpecStateFailureStates) && s.Failure.Location.FileName != "" {
				r.Message += fmt.Sprintf("\nat %s:%d", s.Failure.Location.FileName, s.Failure.Location.LineNumber)
			}
			log.Printf("%-9s %5.1fs  %s", r.State, r.Took.Seconds(), r.Spec)
			results = append(results, r)
		}
	}
	return results, nil
}

// where is what a spec that took too long was doing.
func where(s types.SpecReport) string {
	step := ""
	for _, e := range s.SpecEvents {
		if e.SpecEventType == types.SpecEventByStart {
			step = e.Message
		}
	}
	return "took too long; its last step: " + step
}
