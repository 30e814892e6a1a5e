// Package reload counts how often a configuration file has been read anew, as
// upstream's apiserver_<what>_config_controller_automatic_reload*.
package reload

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Counts of one file. It is a prometheus.Collector. Safe for concurrent use.
type Counts struct {
	total, last *prometheus.Desc
	server      string
	now         func() time.Time

	mu   sync.Mutex
	seen map[string]outcome // by status
}

type outcome struct {
	times int
	last  time.Time
}

// New returns Counts of what ("authentication") without any reload.
func New(what string, now func() time.Time) *Counts {
	prefix := "apiserver_" + what + "_config_controller_"
	labels := []string{"status", "apiserver_id_hash"}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return &Counts{now: now, seen: map[string]outcome{}, server: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("apiserver-"+host))),
		total: prometheus.NewDesc(prefix+"automatic_reloads_total", "Total number of automatic reloads of "+what+" configuration split by status and apiserver identity.", labels, nil),
		last:  prometheus.NewDesc(prefix+"automatic_reload_last_timestamp_seconds", "Timestamp of the last automatic reload of "+what+" configuration split by status and apiserver identity.", labels, nil),
	}
}

// Happened counts one reload.
func (c *Counts) Happened(err error) {
	status := "success"
	if err != nil {
		status = "failure"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[status] = outcome{c.seen[status].times + 1, c.now()}
}

// Describe implements prometheus.Collector.
func (c *Counts) Describe(to chan<- *prometheus.Desc) { to <- c.total; to <- c.last }

// Collect implements prometheus.Collector.
func (c *Counts) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for status, o := range c.seen {
		to <- prometheus.MustNewConstMetric(c.total, prometheus.CounterValue, float64(o.times), status, c.server)
		to <- prometheus.MustNewConstMetric(c.last, prometheus.GaugeValue, float64(o.last.UnixNano())/1e9, status, c.server)
	}
}
