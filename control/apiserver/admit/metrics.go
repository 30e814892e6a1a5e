package admit

import (
	"context"
	"slices"
	"strconv"
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
// others cost a reading of the clock and two additions for each rule that speaks. It is
// a prometheus.Collector.
type Measured struct {
	chain Chain
	all   *timers
	speak [steps][]speaker
	named map[string]*timers // by the rules' names

	rule, whole *prometheus.Desc
}

// speaker is a rule in one half of admission; those of one name share their timers.
type speaker struct {
	Rule
	*timers
}

// timers are the histograms of one rule, or of all of them together. Nil ones are of
// nobody.
type timers [steps][len(operations)][2]spells

// Measure times the rules of c.
func Measure(c Chain) *Measured {
	m := &Measured{chain: c, all: new(timers), named: map[string]*timers{},
		rule: prometheus.NewDesc("apiserver_admission_controller_admission_duration_seconds",
			"Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
			[]string{"name", "type", "operation", "rejected"}, nil),
		whole: prometheus.NewDesc("apiserver_admission_step_admission_duration_seconds",
			"Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
			[]string{"type", "operation", "rejected"}, nil)}
	for _, p := range c {
		if m.named[p.Name] == nil && p.Name != "" {
			m.named[p.Name] = new(timers)
		}
		for step := range m.speak {
			if h, ok := p.Rule.(half); ok && h.only() != step {
				continue
			}
			m.speak[step] = append(m.speak[step], speaker{p.Rule, m.named[p.Name]}) // what has no name is no plugin, and not told
		}
	}
	return m
}

// observe notes how long something took.
func (t *timers) observe(step int, operation resource.Operation, rejected bool, took time.Duration) {
	if t == nil {
		return
	}
	no := 0
	if rejected {
		no = 1
	}
	for i, o := range operations {
		if o == operation {
			t[step][i][no].observe(took)
			return
		}
	}
}

// collect tells all that there is to tell; name is that of the rule, if it is one's.
func (t *timers) collect(c chan<- prometheus.Metric, desc *prometheus.Desc, name ...string) {
	for step := range t {
		for i, o := range operations {
			for no := range t[step][i] {
				labels := []string{stepNames[step], string(o), strconv.FormatBool(no == 1)}
				if m := t[step][i][no].metric(desc, slices.Concat(name, labels)...); m != nil {
					c <- m
				}
			}
		}
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
	c <- m.rule
	c <- m.whole
}

// Collect implements prometheus.Collector.
func (m *Measured) Collect(c chan<- prometheus.Metric) {
	for name, t := range m.named {
		t.collect(c, m.rule, name)
	}
	m.all.collect(c, m.whole)
}
