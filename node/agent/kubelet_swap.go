package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// swapLimit is how much swap pods may use: none unless the configuration allows
// it and cgroups can bound it. It fails when there is swap and there must not be.
func (cfg *Config) swapLimit(k *settings.Kubelet) (int64, error) {
	if cfg.Capacity != nil {
		return 0, nil
	}
	size := swapSize()
	if size > 0 && *k.FailSwapOn {
		return 0, errors.New("agent: running with swap on is not supported, please disable swap or set failSwapOn to false")
	}
	if k.MemorySwap.SwapBehavior != "LimitedSwap" || !cfg.unified() {
		return 0, nil
	}
	return size, nil
}

// boundSwap finds out whether containers can be told how much they may swap out. It is
// called before there are any.
func (a *Agent) boundSwap() {
	bounds, err := a.classes.BoundsSwap()
	if err != nil {
		a.cfg.Log.Warn("containers without a memory limit may swap", "err", err)
	}
	a.node.BoundsSwap = bounds
}

// swapSize is all swap in bytes. The third field of /proc/swaps is in KiB.
func swapSize() int64 {
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return 0
	}
	sum := int64(0)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 {
			kib, err := strconv.ParseInt(f[2], 10, 64)
			if err == nil { // the first line names the fields
				sum += kib << 10
			}
		}
	}
	return sum
}

// unified reports whether the machine has cgroup v2.
func (cfg *Config) unified() bool {
	_, err := os.Stat(filepath.Join(cfg.CgroupMount, "cgroup.controllers"))
	return err == nil
}

// memoryQoS is what the kernel is told of pods' memory beside limits, where it can be.
func (cfg *Config) memoryQoS() spec.MemoryQoS {
	k := cfg.Kubelet
	if !cfg.unified() {
		return spec.MemoryQoS{}
	}
	q := spec.MemoryQoS{Reserve: k.MemoryReservationPolicy == kubeletv1beta1.TieredReservationMemoryReservationPolicy}
	if k.MemoryThrottlingFactor != nil {
		q.Throttle = *k.MemoryThrottlingFactor
	}
	return q
}

// killsTogether says whether a container that is out of memory loses all its processes
// at once: where the kernel can (cgroup v2), unless singleProcessOOMKill says otherwise.
func (cfg *Config) killsTogether() bool {
	single := cfg.Kubelet.SingleProcessOOMKill
	return cfg.unified() && (single == nil || !*single)
}
