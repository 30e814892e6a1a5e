package agent

import (
	"errors"
	"fmt"
	"maps"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"

	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// heed takes over what the KubeletConfiguration says of the Config's fields, and
// returns the whole configuration as it is in effect: /configz shows it.
func (cfg *Config) heed() (*settings.Kubelet, error) {
	given := settings.Kubelet{}
	if cfg.Kubelet != nil {
		given = *cfg.Kubelet
	}
	k := settings.Complete(given)
	if err := settings.Check(&k); err != nil {
		return nil, fmt.Errorf("agent: kubelet configuration: %w", err)
	}
	var err error
	if cfg.gates, err = settings.ReadGates(k.FeatureGates); err != nil {
		return nil, fmt.Errorf("agent: kubelet configuration: %w", err)
	}
	if err := cfg.heedLimits(&k); err != nil {
		return nil, err
	}
	if len(k.ClusterDNS) > 0 {
		cfg.ClusterDNS = k.ClusterDNS
	}
	if k.ClusterDomain != "" {
		cfg.ClusterDomain = k.ClusterDomain
	}
	or(&cfg.ClusterDomain, defaultDomain)
	k.ClusterDNS, k.ClusterDomain = cfg.ClusterDNS, cfg.ClusterDomain
	or(&cfg.LogRoot, k.PodLogsDir)
	or(&cfg.PodCIDR, k.PodCIDR)
	or(&cfg.Resync, k.SyncFrequency.Duration)
	cfg.Taints = append(cfg.Taints, k.RegisterWithTaints...)
	if !*k.EnableServer {
		cfg.TLS = nil
	}
	if err := cfg.admit(k.Authentication.X509.ClientCAFile); err != nil {
		return nil, err
	}
	if err := cfg.secure(&k); err != nil {
		return nil, err
	}
	return &k, cfg.reserve(&k)
}

// heedLimits takes the numbers over.
func (cfg *Config) heedLimits(k *settings.Kubelet) error {
	or(&cfg.MaxPods, int64(k.MaxPods))
	if k.PodsPerCore > 0 {
		cfg.MaxPods = min(cfg.MaxPods, int64(k.PodsPerCore)*int64(runtime.NumCPU()))
	}
	k.MaxPods = int32(cfg.MaxPods) //nolint:gosec // bounded by what it was read from
	or(&cfg.PidsLimit, *k.PodPidsLimit)
	k.PodPidsLimit = &cfg.PidsLimit
	or(&cfg.Port, k.Port)
	k.Port = cfg.Port
	size, err := resource.ParseQuantity(k.ContainerLogMaxSize)
	if err != nil {
		return fmt.Errorf("agent: containerLogMaxSize: %w", err)
	}
	or(&cfg.LogMaxSize, size.Value())
	or(&cfg.LogMaxFiles, int(*k.ContainerLogMaxFiles))
	or(&cfg.ParallelPulls, settings.Pulls(k))
	return nil
}

// kept is what the hard eviction thresholds keep free: pods are not to be evicted
// as soon as they use what they have requested. Of a capacity that was given
// nothing is ever evicted.
func (cfg *Config) kept(capacity corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	list, err := pressure.Parse(cfg.Kubelet)
	if err != nil || cfg.Capacity != nil {
		return out
	}
	for _, t := range list {
		if !t.Hard || (t.Signal != pressure.Memory && t.Signal != pressure.NodeFS) {
			continue
		}
		whole := capacity[t.Signal.Resource()]
		out[t.Signal.Resource()] = *resource.NewQuantity(t.Value.Of(whole.Value()), resource.BinarySI)
	}
	return out
}

// reserve withholds what is reserved for the system and for Kubernetes' own
// parts. Named CPUs go before numbers of them.
func (cfg *Config) reserve(k *settings.Kubelet) error {
	system, err := settings.Reservation(k.SystemReserved)
	kube, kubeErr := settings.Reservation(k.KubeReserved)
	if err := errors.Join(err, kubeErr); err != nil {
		return fmt.Errorf("agent: reservations: %w", err)
	}
	all := maps.Clone(cfg.Reserved)
	if all == nil {
		all = corev1.ResourceList{}
	}
	for _, list := range []corev1.ResourceList{system, kube} {
		for name, q := range list {
			sum := all[name]
			sum.Add(q)
			all[name] = sum
		}
	}
	if k.ReservedSystemCPUs != "" {
		cpus, err := cpuset.Parse(k.ReservedSystemCPUs)
		if err != nil {
			return fmt.Errorf("agent: reservedSystemCPUs: %w", err)
		}
		all[corev1.ResourceCPU] = *resource.NewQuantity(int64(cpus.Size()), resource.DecimalSI)
	}
	cfg.Reserved = all
	return nil
}
