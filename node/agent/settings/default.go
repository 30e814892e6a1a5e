package settings

import (
	"cmp"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
)

// Where our defaults differ from upstream's, they are the safer or the faster
// ones: pods have a bound on processes, seccomp is on, images are pulled side
// by side, and swap is no reason not to start.
const (
	podPids       = 4096
	parallelPulls = 4
	maxPods       = 110
	port          = 10250
)

// Complete fills in what k leaves open and returns the whole; k is not changed.
// Fields that have no effect stay as they are.
func Complete(k Kubelet) Kubelet {
	c := *k.DeepCopy()
	c.Kind, c.APIVersion = kind, apiVersion
	gates, err := ReadGates(c.FeatureGates)
	if err != nil {
		gates = Gates{} // Check says what is wrong
	}
	server(&c)
	intervals(&c)
	rates(&c)
	images(&c, gates)
	pods(&c, gates)
	evictions(&c)
	resources(&c)
	return c
}

func server(c *Kubelet) {
	c.EnableServer = pick(c.EnableServer, true)
	c.Address = cmp.Or(c.Address, "0.0.0.0")
	c.Port = cmp.Or(c.Port, port)
	a := &c.Authentication
	a.Anonymous.Enabled, a.Webhook.Enabled = pick(a.Anonymous.Enabled, false), pick(a.Webhook.Enabled, true)
	wait(&a.Webhook.CacheTTL, 2*time.Minute)
	if c.Authorization.Mode == "" {
		c.Authorization.Mode = kubeletv1beta1.KubeletAuthorizationModeWebhook
	}
	wait(&c.Authorization.Webhook.CacheAuthorizedTTL, 5*time.Minute)
	wait(&c.Authorization.Webhook.CacheUnauthorizedTTL, 30*time.Second)
	c.EnableDebuggingHandlers = pick(c.EnableDebuggingHandlers, true)
	c.EnableProfilingHandler = pick(c.EnableProfilingHandler, true)
	c.HealthzPort = pick(c.HealthzPort, 0) // nothing listens unless asked to
	c.HealthzBindAddress = cmp.Or(c.HealthzBindAddress, "127.0.0.1")
}

func intervals(c *Kubelet) {
	wait(&c.FileCheckFrequency, 20*time.Second)
	wait(&c.HTTPCheckFrequency, 20*time.Second)
	if c.NodeStatusReportFrequency.Duration == 0 {
		c.NodeStatusReportFrequency.Duration = cmp.Or(c.NodeStatusUpdateFrequency.Duration, 5*time.Minute)
	}
	wait(&c.NodeStatusUpdateFrequency, 10*time.Second)
	c.NodeLeaseDurationSeconds = cmp.Or(c.NodeLeaseDurationSeconds, 40)
}

// rates: without a number there is no bound, where upstream has 5 pulls, 50 events and 50
// requests a second.
func rates(c *Kubelet) {
	c.RegistryPullQPS, c.EventRecordQPS, c.KubeAPIQPS = pick(c.RegistryPullQPS, 0), pick(c.EventRecordQPS, 0), pick(c.KubeAPIQPS, 0)
	c.RegistryBurst, c.EventBurst, c.KubeAPIBurst = cmp.Or(c.RegistryBurst, 10), cmp.Or(c.EventBurst, 100), cmp.Or(c.KubeAPIBurst, 100)
}

func images(c *Kubelet, gates Gates) {
	wait(&c.ImageMinimumGCAge, 2*time.Minute)
	// Upstream's is 85. What was built here can't be pulled again, and people's disks
	// are fuller than that: images are collected when the space is needed.
	c.ImageGCHighThresholdPercent = pick(c.ImageGCHighThresholdPercent, 100)
	c.ImageGCLowThresholdPercent = pick(c.ImageGCLowThresholdPercent, 80)
	c.NodeStatusMaxImages = pick(c.NodeStatusMaxImages, 50)
	if gates.On("KubeletEnsureSecretPulledImages") {
		c.ImagePullCredentialsVerificationPolicy = cmp.Or(c.ImagePullCredentialsVerificationPolicy, kubeletv1beta1.NeverVerifyPreloadedImages)
	}
	if c.SerializeImagePulls == nil {
		c.SerializeImagePulls = ptr.To(false)
		c.MaxParallelImagePulls = pick(c.MaxParallelImagePulls, parallelPulls)
	}
}

func pods(c *Kubelet, gates Gates) {
	c.MaxPods = cmp.Or(c.MaxPods, maxPods)
	if c.PodPidsLimit == nil {
		c.PodPidsLimit = ptr.To[int64](podPids)
	}
	c.ResolverConfig = pick(c.ResolverConfig, "/etc/resolv.conf")
	c.SeccompDefault = pick(c.SeccompDefault, true)
	c.ContainerLogMaxSize = cmp.Or(c.ContainerLogMaxSize, "10Mi")
	c.ContainerLogMaxFiles = pick(c.ContainerLogMaxFiles, 5)
	if c.CrashLoopBackOff.MaxContainerRestartPeriod == nil && gates.On("KubeletCrashLoopBackOffMax") {
		c.CrashLoopBackOff.MaxContainerRestartPeriod = &metav1.Duration{Duration: 5 * time.Minute}
	}
	c.LocalStorageCapacityIsolation = pick(c.LocalStorageCapacityIsolation, true)
	c.RegisterNode = pick(c.RegisterNode, true)
}

// hard are the default hard thresholds. Those of disks are amounts, where upstream has
// 10 and 15 percent: of a machine that is not a node alone, as a laptop or a builder, so
// much is often taken, and there is room for hundreds of pods all the same.
var hard = map[string]string{
	"memory.available": "100Mi", "nodefs.available": "1Gi", "nodefs.inodesFree": "1%", "imagefs.available": "1Gi", "imagefs.inodesFree": "1%",
}

func evictions(c *Kubelet) {
	c.MergeDefaultEvictionSettings = pick(c.MergeDefaultEvictionSettings, false)
	wait(&c.EvictionPressureTransitionPeriod, 5*time.Minute)
	if len(c.EvictionHard) > 0 && !*c.MergeDefaultEvictionSettings {
		// Whoever names one threshold names all: the rest is off, as upstream.
		return
	}
	merged := map[string]string{}
	for name, value := range hard {
		merged[name] = value
	}
	for name, value := range c.EvictionHard {
		merged[name] = value
	}
	c.EvictionHard = merged
}

func resources(c *Kubelet) {
	c.CgroupsPerQOS = pick(c.CgroupsPerQOS, true)
	c.CgroupDriver = cmp.Or(c.CgroupDriver, cgroupfs)
	c.FailCgroupV1 = pick(c.FailCgroupV1, false)
	c.CPUManagerPolicy = cmp.Or(c.CPUManagerPolicy, "none")
	c.MemoryManagerPolicy = cmp.Or(c.MemoryManagerPolicy, kubeletv1beta1.NoneMemoryManagerPolicy)
	c.TopologyManagerPolicy = cmp.Or(c.TopologyManagerPolicy, kubeletv1beta1.NoneTopologyManagerPolicy)
	c.TopologyManagerScope = cmp.Or(c.TopologyManagerScope, kubeletv1beta1.ContainerTopologyManagerScope)
	c.CPUCFSQuota = pick(c.CPUCFSQuota, true)
	if c.CPUCFSQuotaPeriod == nil {
		c.CPUCFSQuotaPeriod = &metav1.Duration{Duration: 100 * time.Millisecond}
	}
	c.FailSwapOn = pick(c.FailSwapOn, false)
	if c.EnforceNodeAllocatable == nil {
		c.EnforceNodeAllocatable = []string{"pods"}
	}
}

// Pulls is how many images may be pulled at a time.
func Pulls(c *Kubelet) int {
	switch {
	case ptr.Deref(c.SerializeImagePulls, false):
		return 1
	case c.MaxParallelImagePulls == nil:
		return math.MaxInt16 // upstream: no bound
	}
	return int(*c.MaxParallelImagePulls)
}

func pick[T any](p *T, otherwise T) *T {
	if p != nil {
		return p
	}
	return &otherwise
}

func wait(d *metav1.Duration, otherwise time.Duration) {
	if d.Duration == 0 {
		d.Duration = otherwise
	}
}
