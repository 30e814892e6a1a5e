package main

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lists are what is known of the specs.
type lists struct {
	dir string
	// specs is the list to pass, in its order.
	specs []string
	// passing have passed; waiting cannot yet, and why.
	passing map[string]bool
	waiting map[string]string
}

// reasonMark stands between a spec and its reason in waiting.txt.
const reasonMark = "  # "

func readLists(dir string) (lists, error) {
	l := lists{dir: dir, passing: map[string]bool{}, waiting: map[string]string{}}
	var err error
	if l.specs, err = readLines(filepath.Join(dir, "specs.txt")); err != nil {
		return l, err
	}
	lines, err := readLines(filepath.Join(dir, "passing.txt"))
	if err != nil {
		return l, err
	}
	for _, spec := range lines {
		l.passing[spec] = true
	}
	if lines, err = readLines(filepath.Join(dir, "waiting.txt")); err != nil {
		return l, err
	}
	for _, line := range lines {
		spec, reason, ok := strings.Cut(line, reasonMark)
		if !ok || strings.TrimSpace(reason) == "" {
			return l, fmt.Errorf("waiting.txt: %q has no reason", line)
		}
		l.waiting[spec] = reason
	}
	return l, nil
}

// readLines are a file's lines without empty ones and comments; a file that is not
// there has none.
func readLines(path string) ([]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if line := strings.TrimRight(scan.Text(), " \t"); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, scan.Err()
}

// conclude writes the results, grows passing.txt, and fails when something that
// had passed does not any more.
func (c *config) conclude(l lists, results []result) error {
	// Again: the files may have changed while the suite ran.
	if now, err := readLists(l.dir); err == nil {
		l = now
	}
	slices.SortFunc(results, func(a, b result) int { return strings.Compare(a.Spec, b.Spec) })
	counts := map[string]int{}
	var lost []error
	for _, r := range results {
		counts[r.State]++
		switch {
		case r.State == passed:
			l.passing[r.Spec] = true
			delete(l.waiting, r.Spec)
		case r.State != skipped && l.passing[r.Spec]:
			lost = append(lost, fmt.Errorf("passed before: %s", r.Spec))
		}
	}
	raw, err := json.MarshalIndent(results, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(c.report, "results.json"), raw, 0o644)
	}
	log.Printf("%d passed, %d failed, %d skipped, %d timed out; %s", counts[passed], counts[failed], counts[skipped], counts["timed out"], c.report)
	if c.record {
		err = errors.Join(err, l.write())
	}
	return errors.Join(append(lost, err, c.writeJUnit(results))...)
}

// write puts passing.txt and waiting.txt in the order of the list.
func (l lists) write() error {
	var passing, waiting strings.Builder
	fmt.Fprintf(&passing, "# %d of %d specs have passed. Only grows: written by test/conformance/run.\n", len(l.passing), len(l.specs))
	waiting.WriteString("# What cannot pass yet, and why. A line goes when its spec passes.\n")
	for _, spec := range l.specs {
		if l.passing[spec] {
			fmt.Fprintln(&passing, spec)
		}
		if reason, ok := l.waiting[spec]; ok && !l.passing[spec] {
			fmt.Fprintln(&waiting, spec+reasonMark+reason)
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(l.dir, "passing.txt"), []byte(passing.String()), 0o644),
		os.WriteFile(filepath.Join(l.dir, "waiting.txt"), []byte(waiting.String()), 0o644),
	)
}

// The JUnit format, as far as its readers agree on it.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Seconds float64       `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
		Output  string        `xml:"system-err,omitempty"`
	}
	junitMessage struct {
		Text string `xml:"message,attr"`
	}
)

func (c *config) writeJUnit(results []result) error {
	suite := junitSuite{Name: "conformance", Tests: len(results)}
	for _, r := range results {
		sig, _, _ := strings.Cut(strings.TrimPrefix(r.Spec, "["), "]")
		one := junitCase{Name: r.Spec, Class: sig, Seconds: r.Took.Seconds()}
		switch r.State {
		case passed:
		case skipped:
			one.Skipped = &junitMessage{r.Message}
		default:
			suite.Failures++
			one.Failure, one.Output = &junitMessage{r.Message}, r.Output
		}
		suite.Cases = append(suite.Cases, one)
	}
	raw, err := xml.MarshalIndent(suite, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.report, "junit.xml"), append([]byte(xml.Header), raw...), 0o644)
}
