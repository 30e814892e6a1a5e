package metricsapi

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
)

var everything = selection{fields: fields.Everything()}

// point is what is known of a container, or of the node, at one moment.
type point struct {
	at      time.Time // of the cpu's counter
	started time.Time // zero: unknown
	seconds float64   // of cpu since it started
	bytes   int64
	hasCPU  bool
	hasMem  bool
}

// youngest is how old a container must be for its whole life to be a window.
const youngest = time.Second

// rate is the use between two points; false: it cannot be told. A container that
// has no earlier point, or whose counter has begun anew, is judged by its whole
// life if that is no longer than the time between two looks.
func rate(before, now point) (used, bool) {
	if !now.hasCPU || !now.hasMem {
		return used{}, false
	}
	if !before.hasCPU || before.seconds > now.seconds || now.started.After(before.at) {
		age := now.at.Sub(now.started)
		if now.started.IsZero() || age < youngest || age > every {
			return used{}, false
		}
		before = point{at: now.started}
	}
	window := now.at.Sub(before.at)
	if window <= 0 {
		return used{}, false
	}
	nanos := (now.seconds - before.seconds) / window.Seconds() * 1e9
	return used{at: now.at, window: window, nanos: int64(nanos), bytes: now.bytes}, true
}

// read takes a node's /metrics/resource apart. Families that it does not know are
// passed over; without a time of its own, a value is of now.
func read(r io.Reader, now time.Time) (sample, error) {
	s := sample{pods: map[podKey]map[string]point{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		m, err := metricOf(line, now)
		if err != nil {
			return sample{}, err
		}
		s.take(m)
	}
	if err := lines.Err(); err != nil {
		return sample{}, fmt.Errorf("read a node's metrics: %w", err)
	}
	return s, nil
}

// maxLine bounds a line: a name, three labels of at most 253 bytes, two numbers.
const maxLine = 64 << 10

// take puts a metric in its place.
func (s *sample) take(m metric) {
	switch m.name {
	case "node_cpu_usage_seconds_total":
		s.node.at, s.node.seconds, s.node.hasCPU = m.at, m.value, true
		return
	case "node_memory_working_set_bytes":
		s.node.bytes, s.node.hasMem = int64(m.value), true
		return
	case "container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds":
	default:
		return
	}
	key, name := podKey{m.labels["namespace"], m.labels["pod"]}, m.labels["container"]
	if s.pods[key] == nil {
		s.pods[key] = map[string]point{}
	}
	p := s.pods[key][name]
	switch m.name {
	case "container_cpu_usage_seconds_total":
		p.at, p.seconds, p.hasCPU = m.at, m.value, true
	case "container_memory_working_set_bytes":
		p.bytes, p.hasMem = int64(m.value), true
	default:
		if m.value > 0 {
			p.started = time.Unix(0, int64(m.value*1e9))
		}
	}
	s.pods[key][name] = p
}

// metric is one line of the Prometheus text format.
type metric struct {
	name   string
	labels map[string]string
	value  float64
	at     time.Time
}

func metricOf(line string, now time.Time) (metric, error) {
	m := metric{at: now}
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return m, fmt.Errorf("metric %q: no value", line)
	}
	m.name = line[:end]
	rest := line[end:]
	if rest[0] == '{' {
		var err error
		if m.labels, rest, err = labelsOf(rest[1:]); err != nil {
			return m, fmt.Errorf("metric %q: %w", line, err)
		}
	}
	numbers := strings.Fields(rest)
	if len(numbers) == 0 || len(numbers) > 2 {
		return m, fmt.Errorf("metric %q: not a value and a time", line)
	}
	var err error
	if m.value, err = strconv.ParseFloat(numbers[0], 64); err != nil {
		return m, fmt.Errorf("metric %q: %w", line, err)
	}
	if len(numbers) == 2 {
		millis, err := strconv.ParseInt(numbers[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("metric %q: %w", line, err)
		}
		m.at = time.UnixMilli(millis)
	}
	return m, nil
}

// labelsOf reads labels up to the closing brace, and returns what follows it.
func labelsOf(text string) (labels map[string]string, rest string, err error) {
	labels = map[string]string{}
	for {
		text = strings.TrimLeft(text, " ,\t")
		if after, ok := strings.CutPrefix(text, "}"); ok {
			return labels, after, nil
		}
		name, value, ok := strings.Cut(text, "=")
		quoted, qerr := strconv.QuotedPrefix(strings.TrimSpace(value))
		if !ok || qerr != nil {
			return nil, "", fmt.Errorf("labels end in %q", text)
		}
		plain, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, "", fmt.Errorf("label %s: %w", name, err)
		}
		labels[strings.TrimSpace(name)] = plain
		text = strings.TrimSpace(value)[len(quoted):]
	}
}
