package tally

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// images counts what is asked before an image is used.
type images struct {
	wanted, checks, providerErrors *prometheus.CounterVec
	providerSeconds                *prometheus.HistogramVec
}

func newImages(t *Tally) images {
	i := images{
		wanted:         counters(t, "image_manager_ensure_image_requests_total", "Number of ensure-image requests processed by the kubelet.", "pull_policy", "present_locally", "pull_required"),
		checks:         counters(t, "imagemanager_image_mustpull_checks_total", "Counter for how many times kubelet checked whether credentials need to be re-verified to access an image", "result"),
		providerErrors: counters(t, "credential_provider_plugin_errors_total", "Number of errors from credential provider plugin", "plugin_name"),
		providerSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_credential_provider_plugin_duration",
			Help: "Duration of execution in seconds for credential provider plugin", Buckets: prometheus.DefBuckets}, []string{"plugin_name"}),
	}
	t.all = append(t.all, i.providerSeconds)
	return i
}

// ImageWanted counts a container's wish for an image: whether it was there, and
// whether it had to be pulled all the same.
func (t *Tally) ImageWanted(policy corev1.PullPolicy, present, pull bool) {
	there := strconv.FormatBool(present)
	if policy == corev1.PullAlways {
		there = "unknown" // upstream doesn't look
	}
	t.images.wanted.WithLabelValues(strings.ToLower(string(policy)), there, strconv.FormatBool(pull)).Inc()
}

// ImageChecked counts what a check came to whether a pod may use an image.
func (t *Tally) ImageChecked(result string) { t.images.checks.WithLabelValues(result).Inc() }

// ProviderRan counts a run of a credential provider.
func (t *Tally) ProviderRan(name string, took time.Duration, err error) {
	t.images.providerSeconds.WithLabelValues(name).Observe(took.Seconds())
	if err != nil {
		t.images.providerErrors.WithLabelValues(name).Inc()
	}
}

// Providers tells the hash of the credential providers' configuration; "" is none. It
// is for New's caller alone.
func (t *Tally) Providers(hash string) {
	if hash == "" {
		return
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_credential_provider_config_info",
		Help: "Information about the last applied credential provider configuration with hash as label"}, []string{"hash"})
	info.WithLabelValues(hash).Set(1)
	t.all = append(t.all, info)
}

// ImageRecords has the numbers of records of pulls and of pulled images told. It is
// for New's caller alone.
func (t *Tally) ImageRecords(sizes func() (pulls, images int)) {
	gauge := func(name, help string, value func() int) {
		t.all = append(t.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_" + name, Help: help}, func() float64 { return float64(value()) }))
	}
	gauge("imagemanager_ondisk_pullintents", "Number of ImagePullIntents stored on disk.", func() int { n, _ := sizes(); return n })
	gauge("imagemanager_ondisk_pulledrecords", "Number of ImagePulledRecords stored on disk.", func() int { _, n := sizes(); return n })
}
