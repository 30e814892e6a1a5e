package agent

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/node/agent/server"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

var updateMetrics = flag.Bool("update-metrics", false, "rewrite which of upstream's metrics of nodes there are")

// described takes name and labels out of what a Desc says of itself, which it tells
// nobody otherwise.
var described = regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([^}]*)\}`)

// Every metric that upstream's kubelet v1.37 registers is served with its labels, or is
// named in testdata/metrics.txt as left out, with the reason.
func TestMetricsAgainstUpstream(t *testing.T) {
	collectors := server.Collectors(server.Config{Counts: []prometheus.Collector{tally.New("n1"), figures{}}})
	collectors = append(collectors, server.NewProbes().Collectors()...)
	have := map[string]string{}
	for _, c := range collectors {
		descs := make(chan *prometheus.Desc, 100)
		go func() {
			c.Describe(descs)
			close(descs)
		}()
		for d := range descs {
			m := described.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("can't read %s", d)
			}
			labels := strings.Split(m[2], ",")
			slices.Sort(labels)
			have[m[1]] = strings.Join(labels, ",")
		}
	}
	data, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		name, rest, _ := strings.Cut(line, " ")
		if line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&out, line)
			continue
		}
		told[name] = true
		labels, served := have[name]
		switch {
		case strings.HasPrefix(rest, "! ") && served:
			t.Errorf("%s is said to be left out, and is there", name)
		case !strings.HasPrefix(rest, "! ") && !served:
			t.Errorf("%s is missing", name)
		case served && rest != labels:
			t.Errorf("%s has the labels %q, want %q", name, labels, rest)
		}
		fmt.Fprintln(&out, line)
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !told[name] {
			t.Errorf("%s is served, and not in the list", name)
			fmt.Fprintln(&out, strings.TrimSpace(name+" "+have[name]))
		}
	}
	if *updateMetrics {
		if err := os.WriteFile("testdata/metrics.txt", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What lies in several spans counts once, in whatever order they came.
func TestCovered(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for _, c := range []struct {
		spans [][2]int
		want  time.Duration
	}{
		{nil, 0},
		{[][2]int{{0, 3}}, 3 * time.Second},
		{[][2]int{{5, 6}, {0, 10}}, 10 * time.Second},
		{[][2]int{{0, 4}, {2, 6}, {8, 9}}, 7 * time.Second},
		{[][2]int{{0, 4}, {4, 5}}, 5 * time.Second},
	} {
		var spans []span
		for _, s := range c.spans {
			spans = append(spans, span{at(s[0]), at(s[1])})
		}
		if got := covered(spans); got != c.want {
			t.Errorf("covered %v: %v, want %v", c.spans, got, c.want)
		}
	}
}
