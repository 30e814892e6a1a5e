package settings

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// idsPerPod is how many users of the host a pod with users of its own has.
const idsPerPod = 1 << 16

// Effective is a complete configuration as /configz shows it: what acts as it is acted
// upon, and what has no effect as it was given or, if it wasn't, as upstream's kubelet has
// it by default, since what is shown may be edited and given back. k is not changed.
func Effective(k Kubelet) Kubelet {
	c := *k.DeepCopy()
	unused(&c)
	c.TLSMinVersion, c.RotateCertificates = cmp.Or(c.TLSMinVersion, "VersionTLS12"), true
	c.CgroupDriver = cgroupfs
	for name := range c.StaticPodURLHeader {
		c.StaticPodURLHeader[name] = []string{"<masked>"} // there may be passwords: upstream's masks them in its log alone
	}
	c.MemoryReservationPolicy = cmp.Or(c.MemoryReservationPolicy, kubeletv1beta1.NoneMemoryReservationPolicy)
	c.MemorySwap.SwapBehavior = cmp.Or(c.MemorySwap.SwapBehavior, "NoSwap")
	c.EnableSystemLogHandler, c.EnableSystemLogQuery = pick(c.EnableSystemLogHandler, true), pick(c.EnableSystemLogQuery, false)
	if c.UserNamespaces == nil {
		c.UserNamespaces = &kubeletv1beta1.UserNamespaces{}
	}
	c.UserNamespaces.IDsPerPod = pick(c.UserNamespaces.IDsPerPod, idsPerPod)
	return c
}

// Text is a configuration as files have it, for a log.
func Text(k Kubelet) string {
	text, err := yaml.Marshal(k)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Upstream's defaults of fields without effect. Asking for them asks for nothing.
const (
	streamIdle     = 4 * time.Hour
	cpuReconcile   = 10 * time.Second
	runtimeLimit   = 2 * time.Minute
	masqueradeBit  = 14
	dropBit        = 15
	logWorkers     = 1
	logLook        = 10 * time.Second
	flexvolumes    = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/"
	protobuf       = "application/vnd.kubernetes.protobuf"
	logFlush       = 5 * time.Second
	volumesCounted = time.Minute
)

// unused fills in what has no effect and was not given: with what is done anyway, where
// that is one of the field's values, or else with upstream's default.
func unused(c *Kubelet) {
	c.EnableDebugFlagsHandler, c.MakeIPTablesUtilChains = pick(c.EnableDebugFlagsHandler, false), pick(c.MakeIPTablesUtilChains, false)
	c.HairpinMode, c.ContentType = cmp.Or(c.HairpinMode, kubeletv1beta1.HairpinVeth), cmp.Or(c.ContentType, protobuf)
	c.ConfigMapAndSecretChangeDetectionStrategy = cmp.Or(c.ConfigMapAndSecretChangeDetectionStrategy, kubeletv1beta1.WatchChangeDetectionStrategy)
	c.EnableControllerAttachDetach = pick(c.EnableControllerAttachDetach, true)
	wait(&c.StreamingConnectionIdleTimeout, streamIdle)
	wait(&c.CPUManagerReconcilePeriod, cpuReconcile)
	wait(&c.RuntimeRequestTimeout, runtimeLimit)
	wait(&c.VolumeStatsAggPeriod, volumesCounted) // its sign alone acts
	c.IPTablesMasqueradeBit, c.IPTablesDropBit = pick(c.IPTablesMasqueradeBit, masqueradeBit), pick(c.IPTablesDropBit, dropBit)
	c.ContainerLogMaxWorkers = pick(c.ContainerLogMaxWorkers, logWorkers)
	if c.ContainerLogMonitorInterval == nil {
		c.ContainerLogMonitorInterval = &metav1.Duration{Duration: logLook}
	}
	c.VolumePluginDir = cmp.Or(c.VolumePluginDir, flexvolumes)
	c.Logging.Format = cmp.Or(c.Logging.Format, "text")
	if c.Logging.FlushFrequency.Duration.Duration == 0 {
		c.Logging.FlushFrequency.Duration.Duration, c.Logging.FlushFrequency.SerializeAsString = logFlush, true
	}
}
