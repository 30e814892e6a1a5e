package aggregate

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/kinds/apiregistration"
)

// lapses counts how often API services have become unavailable.
type lapses struct {
	mu    sync.Mutex
	times map[lapse]int
}

type lapse struct{ name, reason string }

// note counts one, if what was has become what is.
func (l *lapses) note(name string, was *apiregistrationv1.APIServiceCondition, is apiregistrationv1.APIServiceCondition) {
	if was == nil || was.Status != apiregistrationv1.ConditionTrue || is.Status == apiregistrationv1.ConditionTrue {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == nil {
		l.times = map[lapse]int{}
	}
	l.times[lapse{name, is.Reason}]++
}

// Upstream's aggregator_*.
var (
	nowDesc   = prometheus.NewDesc("aggregator_unavailable_apiservice", "Gauge of APIServices which are marked as unavailable broken down by APIService name.", []string{"name"}, nil)
	timesDesc = prometheus.NewDesc("aggregator_unavailable_apiservice_total", "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.", []string{"name", "reason"}, nil)
)

// Describe implements prometheus.Collector.
func (a *Aggregator) Describe(c chan<- *prometheus.Desc) { c <- nowDesc; c <- timesDesc }

// Collect implements prometheus.Collector.
func (a *Aggregator) Collect(c chan<- prometheus.Metric) {
	a.mu.Lock()
	for name, s := range a.all {
		down := 0.0
		if at := apiregistration.Available(s); at == nil || at.Status != apiregistrationv1.ConditionTrue {
			down = 1
		}
		c <- prometheus.MustNewConstMetric(nowDesc, prometheus.GaugeValue, down, name)
	}
	a.mu.Unlock()
	a.lapses.mu.Lock()
	defer a.lapses.mu.Unlock()
	for l, n := range a.lapses.times {
		c <- prometheus.MustNewConstMetric(timesDesc, prometheus.CounterValue, float64(n), l.name, l.reason)
	}
}
