package admit

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// The two halves of admission, as upstream's metrics call them.
const (
	stepAdmit = iota
	stepValidate
	steps
)

var (
	stepNames  = [steps]string{"admit", "validate"}
	operations = [...]resource.Operation{resource.OpCreate, resource.OpUpdate, resource.OpDelete, resource.OpConnect}
)

// Measured is a Chain that times its rules under upstream's
// apiserver_admission_*. Which series there is nothing to tell of do not exist; the
// others cost a reading of the clock and some additions for each rule that speaks. It is
// a prometheus.Collector.
type Measured struct {
	chain       Chain
	all         timers
	speak       [steps][]speaker
	rule, whole *prometheus.HistogramVec
}

// speaker is a rule in one half of admission; those of one name share their timers.
type speaker struct {
	Rule
	timers
}

// timers are the histograms of one rule, or of all of them together.
type timers struct {
	made *[steps][len(operations)][2]atomic.Pointer[prometheus.Observer]
	make func(step, operation, rejected string) prometheus.Observer
}

// Measure times the rules of c.
func Measure(c Chain) *Measured {
	buckets := []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5}
	m := &Measured{chain: c,
		rule: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_admission_controller_admission_duration_seconds",
			Help:    "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
			Buckets: buckets}, []string{"name", "type", "operation", "rejected"}),
		whole: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_admission_step_admission_duration_seconds",
			Help:    "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
			Buckets: buckets}, []string{"type", "operation", "rejected"})}
	m.all = newTimers(func(step, operation, rejected string) prometheus.Observer {
		return m.whole.WithLabelValues(step, operation, rejected)
	})
	named := map[string]timers{}
	for _, p := range c {
		if _, ok := named[p.Name]; !ok && p.Name != "" {
			named[p.Name] = newTimers(func(step, operation, rejected string) prometheus.Observer {
				return m.rule.WithLabelValues(p.Name, step, operation, rejected)
			})
		}
		for step := range m.speak {
			if h, ok := p.Rule.(half); ok && h.only() != step {
				continue
			}
			m.speak[step] = append(m.speak[step], speaker{p.Rule, named[p.Name]}) // what has no name is no plugin, and not told
		}
	}
	return m
}

func newTimers(make func(step, operation, rejected string) prometheus.Observer) timers {
	return timers{made: &[steps][len(operations)][2]atomic.Pointer[prometheus.Observer]{}, make: make}
}

// observe notes how long something took, in the series that is made for it once.
func (t timers) observe(step int, operation resource.Operation, rejected bool, took time.Duration) {
	if t.made == nil {
		return
	}
	no := 0
	if rejected {
		no = 1
	}
	for i, o := range operations {
		if o != operation {
			continue
		}
		slot := &t.made[step][i][no]
		o := slot.Load()
		if o == nil {
			made := t.make(stepNames[step], string(operation), strconv.FormatBool(rejected))
			o = &made
			slot.Store(o)
		}
		(*o).Observe(took.Seconds())
		return
	}
}

// Admit implements resource.Admission.
func (m *Measured) Admit(ctx context.Context, a *resource.Attributes) error {
	begin := time.Now()
	err := m.chain.change(ctx, a, func(ctx context.Context) error {
		return m.each(stepAdmit, a, func(r Rule) error { return r.Admit(ctx, a) })
	})
	m.all.observe(stepAdmit, a.Operation, err != nil, time.Since(begin))
	return err
}

// Validate implements resource.Admission.
func (m *Measured) Validate(ctx context.Context, a *resource.Attributes) error {
	begin := time.Now()
	err := m.each(stepValidate, a, func(r Rule) error { return r.Validate(ctx, a) })
	m.all.observe(stepValidate, a.Operation, err != nil, time.Since(begin))
	return err
}

// each asks the rules in turn. The end of one is the beginning of the next.
func (m *Measured) each(step int, a *resource.Attributes, ask func(Rule) error) error {
	begin, last := time.Now(), time.Duration(0)
	for _, s := range m.speak[step] {
		err := ask(s.Rule)
		now := time.Since(begin)
		s.observe(step, a.Operation, err != nil, now-last)
		if last = now; err != nil {
			return err
		}
	}
	return nil
}

// Describe implements prometheus.Collector.
func (m *Measured) Describe(c chan<- *prometheus.Desc) {
	m.rule.Describe(c)
	m.whole.Describe(c)
}

// Collect implements prometheus.Collector.
func (m *Measured) Collect(c chan<- prometheus.Metric) {
	m.rule.Collect(c)
	m.whole.Collect(c)
}
