package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/client"
)

// Series of the server's metrics.
const (
	seriesLatency = "apiserver_request_duration_seconds_bucket"
	// seriesServed leaves out what a request waited for its turn: upstream's
	// objective is about this one.
	seriesServed = "apiserver_request_sli_duration_seconds_bucket"
	seriesCount  = "apiserver_request_total"
)

// reading is what two processes have used and answered so far.
type reading struct {
	at            time.Time
	server, nodes time.Duration // processor
	lost          int64
	heap          float64 // of the server
	// total are requests by verb and by bucket's upper bound, served those for objects
	// by verb and resource: upstream's objective holds for each of these. Verbs in
	// the middle of their life (WATCH, CONNECT) are left out.
	total, served map[string]map[float64]float64
	// requests are by verb and resource, refused those with a code of 429 or more.
	requests map[string]float64
	refused  float64
}

// reading reads the server's metrics and what the processes have used.
func (s *scaled) reading(ctx context.Context) (*reading, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	text, err := client.Raw(ctx, s.Transport, "/metrics")
	if err != nil {
		return nil, fmt.Errorf("read the server's metrics: %w", err)
	}
	r := &reading{at: time.Now(), server: processor(procOf(s.cmd.Process.Pid)), lost: s.lost.Load(),
		total: map[string]map[float64]float64{}, served: map[string]map[float64]float64{}, requests: map[string]float64{}}
	if s.nodes != nil {
		r.nodes = processor(procOf(s.nodes.Process.Pid))
	}
	for line := range strings.Lines(string(text)) {
		r.take(line)
	}
	return r, nil
}

func procOf(pid int) string { return "/proc/" + strconv.Itoa(pid) }

func (r *reading) take(line string) {
	name, rest, _ := strings.Cut(strings.TrimSpace(line), "{")
	if heap, ok := strings.CutPrefix(name, "go_memstats_heap_alloc_bytes "); ok {
		r.heap, _ = strconv.ParseFloat(heap, 64)
	}
	text, number, found := strings.Cut(rest, "} ")
	value, err := strconv.ParseFloat(number, 64)
	if !found || err != nil {
		return
	}
	labels := map[string]string{}
	for _, pair := range strings.Split(text, ",") {
		k, v, _ := strings.Cut(pair, "=")
		labels[k] = strings.Trim(v, `"`)
	}
	verb := labels["verb"]
	if verb == "WATCH" || verb == "CONNECT" {
		return
	}
	what := verb + " " + labels["resource"]
	if labels["subresource"] != "" {
		what += "/" + labels["subresource"]
	}
	switch name {
	case seriesLatency:
		add(r.total, verb, labels["le"], value)
	case seriesServed:
		if labels["resource"] != "" {
			add(r.served, what, labels["le"], value)
		}
	case seriesCount:
		r.requests[what] += value
		if code, _ := strconv.Atoi(labels["code"]); code >= 429 {
			r.refused += value
		}
	}
}

func add(to map[string]map[float64]float64, verb, bound string, value float64) {
	le := math.Inf(1)
	if bound != "+Inf" {
		le, _ = strconv.ParseFloat(bound, 64)
	}
	if to[verb] == nil {
		to[verb] = map[float64]float64{}
	}
	to[verb][le] += value
}

// phase runs a part of the measurement and tells what it cost.
func (s *scaled) phase(ctx context.Context, name string, before *reading, run func(context.Context) string) ([]row, *reading, error) {
	result := run(ctx)
	after, err := s.reading(context.WithoutCancel(ctx))
	if err != nil {
		return []row{{name, result, ""}}, nil, err
	}
	took := after.at.Sub(before.at)
	rows := []row{
		{name, fmt.Sprintf("%s, after %.0f s", result, took.Seconds()), "all"},
		{"  nodes that stopped being Ready", strconv.FormatInt(after.lost-before.lost, 10), "0"},
		{"  requests that waited included, p50 and p99", latencies(before.total, after.total), ""},
		{"  requests once it was their turn, p50 and p99, the slowest kinds", slowest(before.served, after.served), "p99 <= 1 s"},
		{"  processor of the server, of the nodes", fmt.Sprintf("%.1f s, %.1f s", (after.server - before.server).Seconds(), (after.nodes - before.nodes).Seconds()), ""},
		{"  requests, refused", fmt.Sprintf("%s; %.0f", mostOf(before.requests, after.requests), after.refused-before.refused), ""},
		s.beside.tell(),
	}
	return append(rows, s.weighed(after)...), after, nil
}

// weigh notes how much memory both processes have at most.
func (s *scaled) weigh(ctx context.Context) {
	for pause(ctx, weighEvery) == nil {
		server, _ := field(procOf(s.cmd.Process.Pid)+"/status", "VmRSS:")
		nodes, _ := field(procOf(s.nodes.Process.Pid)+"/status", "VmRSS:")
		s.heaviest.Store(max(s.heaviest.Load(), server+nodes))
	}
}

// weighed is the memory of the two processes.
func (s *scaled) weighed(r *reading) []row {
	server, _ := field(procOf(s.cmd.Process.Pid)+"/status", "VmRSS:")
	mapped, _ := field(procOf(s.cmd.Process.Pid)+"/status", "RssFile:")
	nodes, _ := field(procOf(s.nodes.Process.Pid)+"/status", "VmRSS:")
	each := fmt.Sprintf("%.0f kB a node in the nodes' process", float64(nodes)/max(1, float64(s.ready.Load())))
	if pods := s.running.Load(); pods > 0 {
		each = fmt.Sprintf("%.1f kB a pod in the server's heap, %.1f kB in the nodes' memory, nodes included",
			r.heap/1024/float64(pods), float64(nodes)/float64(pods))
	}
	return []row{
		{"  memory of the server (its heap, mapped files), of the nodes, the most of both at once", fmt.Sprintf("%d MB (%.0f MB, %d MB), %d MB, %d MB", server>>10, r.heap/(1<<20), mapped>>10, nodes>>10, s.heaviest.Load()>>10), "<= 8192 MB"},
		{"  memory for each", each, ""},
	}
}

// Kinds of requests are told slowest first, at most slowKinds, if there were enough
// of them for one in a hundred to mean something.
const slowKinds, enough = 4, 200

// slowest are the percentiles of the kinds of requests whose 99th is the longest.
func slowest(before, after map[string]map[float64]float64) string {
	var kinds []string
	p99 := map[string]float64{}
	for what := range after {
		if grown(before, after, what)(math.Inf(1)) >= enough {
			kinds, p99[what] = append(kinds, what), percentile(before, after, what, 0.99)
		}
	}
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Or(cmp.Compare(p99[b], p99[a]), strings.Compare(a, b)) })
	var parts []string
	for _, what := range kinds[:min(len(kinds), slowKinds)] {
		parts = append(parts, both(before, after, what))
	}
	return cmp.Or(strings.Join(parts, "; "), "too few")
}

// latencies are the percentiles between two readings, by verb.
func latencies(before, after map[string]map[float64]float64) string {
	var parts []string
	for _, verb := range slices.Sorted(maps.Keys(after)) {
		if grown(before, after, verb)(math.Inf(1)) > 0 {
			parts = append(parts, both(before, after, verb))
		}
	}
	return cmp.Or(strings.Join(parts, "; "), "none")
}

// both are the two percentiles of one kind of requests.
func both(before, after map[string]map[float64]float64, what string) string {
	bounds := slices.Sorted(maps.Keys(after[what]))
	return fmt.Sprintf("%s %s, %s", what, bound(percentile(before, after, what, 0.5), bounds), bound(percentile(before, after, what, 0.99), bounds))
}

// grown gives how many requests came that took no longer than a bucket's bound.
func grown(before, after map[string]map[float64]float64, what string) func(le float64) float64 {
	return func(le float64) float64 { return after[what][le] - before[what][le] }
}

// percentile is the upper bound of the bucket that a part of the requests is in.
func percentile(before, after map[string]map[float64]float64, what string, part float64) float64 {
	count := grown(before, after, what)
	for _, le := range slices.Sorted(maps.Keys(after[what])) {
		if count(le) >= part*count(math.Inf(1)) {
			return le
		}
	}
	return math.Inf(1)
}

// bound is a bucket's upper bound in words.
func bound(le float64, bounds []float64) string {
	if math.IsInf(le, 1) && len(bounds) > 1 {
		return fmt.Sprintf("> %g s", bounds[len(bounds)-2])
	}
	return fmt.Sprintf("<= %g s", le)
}

// mostOf is which requests there were most of.
func mostOf(before, after map[string]float64) string {
	grown := map[string]float64{}
	for what, n := range after {
		if n > before[what] {
			grown[what] = n - before[what]
		}
	}
	names := slices.SortedFunc(maps.Keys(grown), func(a, b string) int { return cmp.Or(cmp.Compare(grown[b], grown[a]), strings.Compare(a, b)) })
	var parts []string
	for _, name := range names[:min(len(names), 7)] {
		parts = append(parts, fmt.Sprintf("%.0f %s", grown[name], name))
	}
	return strings.Join(parts, ", ")
}
