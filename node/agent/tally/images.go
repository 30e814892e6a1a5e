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
	pullSeconds                    *prometheus.HistogramVec
	collected                      *prometheus.CounterVec
	mounted                        [3]prometheus.Counter // asked for, mounted, not mounted
}

// pullBuckets are upstream's for pulls of images, in seconds.
var pullBuckets = []float64{1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// imageSizes are upstream's classes of images, and from how many MiB on they are of it.
var imageSizes = []struct {
	above uint64
	label string
}{
	{100 << 10, "GT100GB"}, {60 << 10, "60GB-100GB"}, {40 << 10, "40GB-60GB"}, {30 << 10, "30GB-40GB"}, {20 << 10, "20GB-30GB"}, {10 << 10, "10GB-20GB"},
	{5 << 10, "5GB-10GB"}, {1 << 10, "1GB-5GB"}, {500, "500MB-1GB"}, {100, "100MB-500MB"}, {10, "10MB-100MB"}, {0, "0-10MB"},
}

func imageSize(bytes uint64) string {
	for _, s := range imageSizes {
		if bytes > s.above<<20 {
			return s.label
		}
	}
	return "N/A" // nobody knows
}

// ImagePulled counts a pull that came to its end, and took so long.
func (t *Tally) ImagePulled(bytes uint64, took time.Duration) {
	t.images.pullSeconds.WithLabelValues(imageSize(bytes)).Observe(took.Seconds())
}

// ImageCollected counts an image that was removed, since nothing used it: for space, or
// for its age.
func (t *Tally) ImageCollected(reason string) { t.images.collected.WithLabelValues(reason).Inc() }

// ImagesMounted counts a container that wants images as volumes, at so many places.
func (t *Tally) ImagesMounted(images, places int, failed bool) {
	t.images.mounted[0].Add(float64(images))
	which := 1
	if failed {
		which = 2
	}
	t.images.mounted[which].Add(float64(places))
}

func newImages(t *Tally) images {
	i := images{
		wanted:         counters(t, "image_manager_ensure_image_requests_total", "Number of ensure-image requests processed by the kubelet.", "pull_policy", "present_locally", "pull_required"),
		checks:         counters(t, "imagemanager_image_mustpull_checks_total", "Counter for how many times kubelet checked whether credentials need to be re-verified to access an image", "result"),
		providerErrors: counters(t, "credential_provider_plugin_errors_total", "Number of errors from credential provider plugin", "plugin_name"),
		providerSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_credential_provider_plugin_duration",
			Help: "Duration of execution in seconds for credential provider plugin", Buckets: prometheus.DefBuckets}, []string{"plugin_name"}),
		pullSeconds: histograms(t, "kubelet_image_pull_duration_seconds", "Seconds that images took to pull, by their size.", pullBuckets, "image_size_in_bytes"),
		collected:   counters(t, "image_garbage_collected_total", "Images that were removed since nothing used them: for want of space, or for their age.", "reason"),
		mounted: [3]prometheus.Counter{
			counter(t, "image_volume_requested_total", "Number of requested image volumes."),
			counter(t, "image_volume_mounted_succeed_total", "Number of successful image volume mounts."),
			counter(t, "image_volume_mounted_errors_total", "Number of failed image volume mounts."),
		},
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
