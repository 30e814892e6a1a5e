package settings

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/component-helpers/node/util/sysctl"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/cpuset"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/node/agent/pulled"
)

// Check says everything that is wrong with a complete configuration, by
// upstream's rules.
func Check(c *Kubelet) error {
	var bad problems
	gates, err := ReadGates(c.FeatureGates)
	if err != nil {
		return fmt.Errorf("invalid configuration: featureGates: %w", err)
	}
	gated(c, gates, &bad)
	for _, part := range []func(*Kubelet, *problems){numbers, tuning, files, secrets, sysctls, pulls, shutdown, managers, reservations, thresholds, taints} {
		part(c, &bad)
	}
	return errors.Join(bad...)
}

type problems []error

// unless adds a problem when what should hold doesn't.
func (p *problems) unless(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf("invalid configuration: "+format, args...))
	}
}

func between[T int | int32 | int64 | time.Duration](v, low, high T) bool {
	return low <= v && v <= high
}

func numbers(c *Kubelet, bad *problems) {
	bad.unless(c.NodeLeaseDurationSeconds > 0, "nodeLeaseDurationSeconds must be greater than 0")
	bad.unless(between(*c.HealthzPort, 0, 65535), "healthzPort %d must be between 1 and 65535, inclusive", *c.HealthzPort)
	bad.unless(between(c.Port, 1, 65535), "port %d must be between 1 and 65535, inclusive", c.Port)
	bad.unless(net.ParseIP(c.Address) != nil, "address %q is not an IP address", c.Address)
	bad.unless(between(c.CPUCFSQuotaPeriod.Duration, time.Millisecond, time.Second), "cpuCFSQuotaPeriod %v must be between 1ms and 1sec, inclusive", c.CPUCFSQuotaPeriod.Duration)
	high, low := *c.ImageGCHighThresholdPercent, *c.ImageGCLowThresholdPercent
	bad.unless(between(high, 0, 100), "imageGCHighThresholdPercent %d must be between 0 and 100, inclusive", high)
	bad.unless(between(low, 0, 100), "imageGCLowThresholdPercent %d must be between 0 and 100, inclusive", low)
	bad.unless(low < high, "imageGCLowThresholdPercent %d must be less than imageGCHighThresholdPercent %d", low, high)
	least, most := c.ImageMinimumGCAge.Duration, c.ImageMaximumGCAge.Duration
	bad.unless(least >= 0, "imageMinimumGCAge %v must not be negative", least)
	bad.unless(most >= 0, "imageMaximumGCAge %v must not be negative", most)
	bad.unless(most <= 0 || most > least, "imageMaximumGCAge %v must be greater than imageMinimumGCAge %v", most, least)
	bad.unless(*c.NodeStatusMaxImages >= -1, "nodeStatusMaxImages %d must be -1 or greater", *c.NodeStatusMaxImages)
	if f := c.MemoryThrottlingFactor; f != nil {
		bad.unless(*f > 0 && *f <= 1, "memoryThrottlingFactor %v must be greater than 0 and less than or equal to 1.0", *f)
	}
	const none, tiered = kubeletv1beta1.NoneMemoryReservationPolicy, kubeletv1beta1.TieredReservationMemoryReservationPolicy
	policy := cmp.Or(c.MemoryReservationPolicy, none)
	bad.unless(policy == none || policy == tiered, "option %q specified for memoryReservationPolicy. Valid options are %q or %q", policy, none, tiered)
	bad.unless(c.MaxPods >= 0, "maxPods %d must not be a negative number", c.MaxPods)
	bad.unless(c.PodsPerCore >= 0, "podsPerCore %d must not be a negative number", c.PodsPerCore)
	parallel := c.MaxParallelImagePulls
	bad.unless(parallel == nil || *parallel >= 1, "maxParallelImagePulls must be a positive number")
	bad.unless(parallel == nil || *parallel <= 1 || !*c.SerializeImagePulls, "maxParallelImagePulls cannot be larger than 1 unless serializeImagePulls is set to false")
	bad.unless(*c.ContainerLogMaxFiles > 1, "containerLogMaxFiles must be greater than 1")
	size, err := resource.ParseQuantity(c.ContainerLogMaxSize)
	bad.unless(err == nil, "containerLogMaxSize %q is not a quantity", c.ContainerLogMaxSize)
	bad.unless(err != nil || size.Sign() != 0, "containerLogMaxSize must not be 0")
	if u := c.UserNamespaces; u != nil && u.IDsPerPod != nil {
		bad.unless(*u.IDsPerPod >= 1<<16, "userNamespaces.idsPerPod must not be less than %d", 1<<16)
		bad.unless(*u.IDsPerPod%(1<<16) == 0, "userNamespaces.idsPerPod must be a multiple of %d", 1<<16)
		bad.unless(*u.IDsPerPod <= math.MaxUint32, "userNamespaces.idsPerPod must not be more than %d", int64(math.MaxUint32))
	}
	if restart := c.CrashLoopBackOff.MaxContainerRestartPeriod; restart != nil {
		bad.unless(between(restart.Duration, time.Second, 5*time.Minute), "crashLoopBackOff.maxContainerRestartPeriod (got: %v) must be set between 1s and 300s", restart.Duration)
	}
}

// tuning judges numbers that bound how fast the node goes, and those that upstream judges
// though they have no effect here.
func tuning(c *Kubelet, bad *problems) {
	for field, n := range map[string]int32{
		"registryPullQPS": *c.RegistryPullQPS, "registryBurst": c.RegistryBurst, "eventRecordQPS": *c.EventRecordQPS, "eventBurst": c.EventBurst,
		"kubeAPIQPS": *c.KubeAPIQPS, "kubeAPIBurst": c.KubeAPIBurst,
	} {
		bad.unless(n >= 0, "%s %d must not be a negative number", field, n)
	}
	bad.unless(c.MaxOpenFiles >= 0, "maxOpenFiles %d must not be a negative number", c.MaxOpenFiles)
	score := ptr.Deref(c.OOMScoreAdj, 0)
	bad.unless(between(score, -1000, 1000), "oomScoreAdj %d must be between -1000 and 1000, inclusive", score)
	bad.unless(between(c.ReadOnlyPort, 0, 65535), "readOnlyPort %d must be between 0 and 65535, inclusive", c.ReadOnlyPort)
	bad.unless(ptr.Deref(c.ContainerLogMaxWorkers, 1) >= 1, "containerLogMaxWorkers must be greater than or equal to 1")
	interval := c.ContainerLogMonitorInterval
	bad.unless(interval == nil || interval.Duration >= 3*time.Second, "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s")
	drop, masquerade := ptr.Deref(c.IPTablesDropBit, 0), ptr.Deref(c.IPTablesMasqueradeBit, 0)
	bad.unless(between(drop, 0, 31), "iptablesDropBit %d must be between 0 and 31, inclusive", drop)
	bad.unless(between(masquerade, 0, 31), "iptablesMasqueradeBit %d must be between 0 and 31, inclusive", masquerade)
	bad.unless(c.SystemCgroups == "" || c.CgroupRoot != "", "systemCgroups was specified and cgroupRoot was not specified")
	modes := []string{"", kubeletv1beta1.HairpinNone, kubeletv1beta1.HairpinVeth, kubeletv1beta1.PromiscuousBridge}
	bad.unless(slices.Contains(modes, c.HairpinMode), "option %q specified for hairpinMode. Valid options are %q", c.HairpinMode, modes[1:])
	bad.unless(slices.Contains([]string{"", "text", "json"}, c.Logging.Format), "logging.format: Invalid value: %q: Unsupported log format", c.Logging.Format)
	oneOf(bad, "cgroupDriver", c.CgroupDriver, cgroupfs, "systemd")
}

func files(c *Kubelet, bad *problems) {
	logs := c.PodLogsDir
	bad.unless(logs == "" || filepath.IsAbs(logs), "pod logs path %q must be absolute path", logs)
	bad.unless(logs == "" || filepath.Clean(logs) == logs, "pod logs path %q must be normalized", logs)
	for _, r := range logs {
		if r > 127 {
			bad.unless(false, "pod logs path %q must contain ASCII characters only", logs)
			break
		}
	}
	path := c.StaticPodPath
	bad.unless(path == "" || filepath.IsAbs(path), "staticPodPath %q must be absolute", path)
	for _, ip := range c.ClusterDNS {
		bad.unless(net.ParseIP(ip) != nil, "clusterDNS %q is not an IP address", ip)
	}
	mode := c.Authorization.Mode
	bad.unless(mode == kubeletv1beta1.KubeletAuthorizationModeWebhook || mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow,
		"authorization.mode %q must be one of: AlwaysAllow, Webhook", mode)
}

// secrets judges how the kubelet API is served.
func secrets(c *Kubelet, bad *problems) {
	_, err := ServerTLS(c)
	bad.unless(err == nil, "%v", err)
	// Upstream starts with one of them and then answers nobody.
	bad.unless((c.TLSCertFile == "") == (c.TLSPrivateKeyFile == ""), "tlsCertFile and tlsPrivateKeyFile must be given together")
}

// gated judges the fields that need a gate.
func gated(c *Kubelet, gates Gates, bad *problems) {
	needs := func(gate string, given bool, field string) {
		bad.unless(!given || gates.On(gate), "%s needs the feature gate %s", field, gate)
	}
	const usual, formerThrottling = 100 * time.Millisecond, 0.9
	needs("CustomCPUCFSQuotaPeriod", c.CPUCFSQuotaPeriod.Duration != usual, "cpuCFSQuotaPeriod")
	needs("GracefulNodeShutdown", c.ShutdownGracePeriod.Duration > 0 || c.ShutdownGracePeriodCriticalPods.Duration > 0, "shutdownGracePeriod or shutdownGracePeriodCriticalPods")
	needs("GracefulNodeShutdownBasedOnPodPriority", len(c.ShutdownGracePeriodByPodPriority) > 0, "shutdownGracePeriodByPodPriority")
	needs("KubeletCrashLoopBackOffMax", c.CrashLoopBackOff.MaxContainerRestartPeriod != nil, "crashLoopBackOff.maxContainerRestartPeriod")
	needs("KubeletEnsureSecretPulledImages", c.ImagePullCredentialsVerificationPolicy != "", "imagePullCredentialsVerificationPolicy")
	needs("KubeletEnsureSecretPulledImages", len(c.PreloadedImagesVerificationAllowlist) > 0, "preloadedImagesVerificationAllowlist")
	// Upstream's former default is let through.
	needs("MemoryQoS", c.MemoryThrottlingFactor != nil && *c.MemoryThrottlingFactor != formerThrottling, "memoryThrottlingFactor")
	needs("MemoryQoS", c.MemoryReservationPolicy == kubeletv1beta1.TieredReservationMemoryReservationPolicy, "memoryReservationPolicy "+string(c.MemoryReservationPolicy))
	needs("DefaultPodSysctls", len(c.DefaultPodSysctls) > 0, "defaultPodSysctls")
	bad.unless(!ptr.Deref(c.EnableSystemLogQuery, false) || ptr.Deref(c.EnableSystemLogHandler, true), "enableSystemLogHandler is required for enableSystemLogQuery")
	needs("QOSReserved", len(c.QOSReserved) > 0, "qosReserved")
}

// sysctlName is what the kernel's parameters are called, with dots or slashes.
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

const maxSysctl = 253

func sysctls(c *Kubelet, bad *problems) {
	seen := map[string]bool{}
	for _, name := range names(c.DefaultPodSysctls) {
		if len(name) > maxSysctl || !sysctlName.MatchString(name) {
			bad.unless(false, "%q is not a valid sysctl name for defaultPodSysctls", name)
			continue
		}
		space, _, _ := sysctl.GetNamespace(name)
		bad.unless(space != sysctl.UnknownNamespace, "%q is not known to be namespaced for defaultPodSysctls", name)
		name = sysctl.NormalizeName(name)
		bad.unless(!seen[name], "duplicate sysctl %q found in defaultPodSysctls", name)
		seen[name] = true
	}
}

// pulls judges who may use the images that are there.
func pulls(c *Kubelet, bad *problems) {
	policy, list := c.ImagePullCredentialsVerificationPolicy, c.PreloadedImagesVerificationAllowlist
	if policy == "" && len(list) == 0 {
		return // the gate is off
	}
	valid := []kubeletv1beta1.ImagePullCredentialsVerificationPolicy{kubeletv1beta1.NeverVerify, kubeletv1beta1.NeverVerifyPreloadedImages,
		kubeletv1beta1.NeverVerifyAllowlistedImages, kubeletv1beta1.AlwaysVerify}
	bad.unless(slices.Contains(valid, policy), "option %q specified for imagePullCredentialsVerificationPolicy. Valid options are %q", policy, valid)
	bad.unless(len(list) == 0 || policy == kubeletv1beta1.NeverVerifyAllowlistedImages,
		"can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVerificationPolicy` is not %q", kubeletv1beta1.NeverVerifyAllowlistedImages)
	err := pulled.CheckAllow(list)
	bad.unless(err == nil, "invalid image pattern in `preloadedImagesVerificationAllowlist`: %v", err)
}

func shutdown(c *Kubelet, bad *problems) {
	total, critical := c.ShutdownGracePeriod.Duration, c.ShutdownGracePeriodCriticalPods.Duration
	bad.unless(critical <= total, "shutdownGracePeriodCriticalPods %v must be <= shutdownGracePeriod %v", critical, total)
	bad.unless(total == 0 || total >= time.Second, "shutdownGracePeriod %v must be either zero or otherwise >= 1 sec", total)
	bad.unless(critical == 0 || critical >= time.Second, "shutdownGracePeriodCriticalPods %v must be either zero or otherwise >= 1 sec", critical)
	bad.unless(len(c.ShutdownGracePeriodByPodPriority) == 0 || (total == 0 && critical == 0),
		"cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time")
	for _, p := range c.ShutdownGracePeriodByPodPriority {
		bad.unless(p.ShutdownGracePeriodSeconds >= 0, "shutdownGracePeriodByPodPriority: %d seconds must not be negative", p.ShutdownGracePeriodSeconds)
	}
}

func oneOf(bad *problems, field, value string, valid ...string) {
	bad.unless(slices.Contains(valid, value), "%s %q must be one of: %q", field, value, valid)
}

func managers(c *Kubelet, bad *problems) {
	oneOf(bad, "cpuManagerPolicy", c.CPUManagerPolicy, "none", "static")
	oneOf(bad, "memoryManagerPolicy", c.MemoryManagerPolicy, kubeletv1beta1.NoneMemoryManagerPolicy, kubeletv1beta1.StaticMemoryManagerPolicy)
	oneOf(bad, "topologyManagerPolicy", c.TopologyManagerPolicy, kubeletv1beta1.NoneTopologyManagerPolicy, kubeletv1beta1.BestEffortTopologyManagerPolicy,
		kubeletv1beta1.RestrictedTopologyManagerPolicy, kubeletv1beta1.SingleNumaNodeTopologyManagerPolicy)
	oneOf(bad, "topologyManagerScope", c.TopologyManagerScope, kubeletv1beta1.ContainerTopologyManagerScope, kubeletv1beta1.PodTopologyManagerScope)
	oneOf(bad, "memorySwap.swapBehavior", c.MemorySwap.SwapBehavior, "", "NoSwap", "LimitedSwap")
}

// enforcements are what reservations may be enforced on.
var enforcements = []string{"pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"}

func reservations(c *Kubelet, bad *problems) {
	for field, list := range map[string]map[string]string{"systemReserved": c.SystemReserved, "kubeReserved": c.KubeReserved} {
		_, err := Reservation(list)
		bad.unless(err == nil, "%s: %v", field, err)
	}
	if text := c.ReservedSystemCPUs; text != "" {
		_, err := cpuset.Parse(text)
		bad.unless(err == nil, "unable to parse reservedSystemCPUs %v, error: %v", text, err)
	}
	seen := map[string]bool{}
	for _, what := range c.EnforceNodeAllocatable {
		bad.unless(!seen[what], "duplicated enforcements %q in enforceNodeAllocatable", what)
		seen[what] = true
		bad.unless(slices.Contains(enforcements, what), "option %q specified for enforceNodeAllocatable. Valid options are %q", what, enforcements)
		bad.unless(what != "none" || len(c.EnforceNodeAllocatable) == 1, "enforceNodeAllocatable may not contain additional enforcements when %q is specified", what)
	}
	for what, group := range map[string]string{"system-reserved": c.SystemReservedCgroup, "kube-reserved": c.KubeReservedCgroup} {
		whole, part := seen[what], seen[what+"-compressible"]
		bad.unless(!whole || !part, "both %q and %q cannot be specified together in enforceNodeAllocatable", what, what+"-compressible")
		bad.unless(group != "" || !whole && !part, "%sCgroup must be specified when %q is in enforceNodeAllocatable", strings.Replace(what, "-r", "R", 1), what)
		bad.unless(group == "" || c.ReservedSystemCPUs == "", "can't use reservedSystemCPUs with systemReservedCgroup or kubeReservedCgroup")
	}
	nodes := map[int32]map[corev1.ResourceName]bool{}
	for _, r := range c.ReservedMemory {
		if nodes[r.NumaNode] == nil {
			nodes[r.NumaNode] = map[corev1.ResourceName]bool{}
		}
		for name, q := range r.Limits {
			bad.unless(!nodes[r.NumaNode][name], "the reserved memory has a duplicate value for NUMA node %d and resource %q", r.NumaNode, name)
			nodes[r.NumaNode][name] = true
			bad.unless(name == corev1.ResourceMemory || isHugePages(name), "the limit type %q for NUMA node %d is not supported, only [memory hugepages-<size>] is accepted", name, r.NumaNode)
			bad.unless(q.Sign() > 0, "reserved memory may not be zero for NUMA node %d and resource %q", r.NumaNode, name)
		}
	}
}

func isHugePages(name corev1.ResourceName) bool {
	return len(name) > len(corev1.ResourceHugePagesPrefix) && string(name[:len(corev1.ResourceHugePagesPrefix)]) == corev1.ResourceHugePagesPrefix
}

// Reservation reads systemReserved or kubeReserved: cpu, memory,
// ephemeral-storage and pid may be reserved.
func Reservation(list map[string]string) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for name, text := range list {
		if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage", "pid"}, name) {
			return nil, fmt.Errorf("cannot reserve %q resource", name)
		}
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("failed to parse quantity %q for %q resource: %w", text, name, err)
		}
		if q.Sign() < 0 {
			return nil, fmt.Errorf("resource quantity for %q cannot be negative: %v", name, text)
		}
		out[corev1.ResourceName(name)] = q
	}
	return out, nil
}

func thresholds(c *Kubelet, bad *problems) {
	bad.unless(c.EvictionMaxPodGracePeriod >= -1, "evictionMaxPodGracePeriod %d must be -1 or greater", c.EvictionMaxPodGracePeriod)
	for signal := range c.EvictionSoft {
		_, ok := c.EvictionSoftGracePeriod[signal]
		bad.unless(ok, "grace period must be specified for the soft eviction threshold %s", signal)
	}
}

func taints(c *Kubelet, bad *problems) {
	for _, t := range c.RegisterWithTaints {
		ok := len(utilvalidation.IsQualifiedName(t.Key)) == 0 && len(utilvalidation.IsValidLabelValue(t.Value)) == 0 &&
			slices.Contains([]corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}, t.Effect)
		bad.unless(ok, "invalid taint: %s=%s:%s", t.Key, t.Value, t.Effect)
		bad.unless(t.TimeAdded == nil, "taint.TimeAdded is not nil")
	}
}
