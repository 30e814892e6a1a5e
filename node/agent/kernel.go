package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/utils/ptr"
)

// kernelWants are the settings of the kernel that upstream's kubelet insists on when
// protectKernelDefaults is set.
var kernelWants = map[string]string{
	"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
	"kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
}

// kernelFaults are the kernel's settings that are not what is insisted on.
func kernelFaults(read func(name string) (string, error)) error {
	var bad []error
	var names []string
	for name := range kernelWants {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		have, err := read(name)
		switch want := kernelWants[name]; {
		case err != nil:
			bad = append(bad, fmt.Errorf("protectKernelDefaults: %w", err))
		case have != want:
			bad = append(bad, fmt.Errorf("protectKernelDefaults: invalid kernel flag: %s, expected value: %s, actual value: %s", strings.ReplaceAll(name, ".", "/"), want, have))
		}
	}
	return errors.Join(bad...)
}

func readSysctl(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/")))
	return strings.TrimSpace(string(text)), err
}

// fits says what of the machine is not as the configuration wants it. It is asked of whole
// nodes alone.
func (cfg *Config) fits() error {
	k := cfg.Kubelet
	var bad []error
	if *k.FailCgroupV1 && !cfg.unified() {
		bad = append(bad, errors.New("failCgroupV1: kubelet is configured to not run on a host using cgroup v1"))
	}
	if !cfg.unified() && k.SingleProcessOOMKill != nil && !*k.SingleProcessOOMKill {
		bad = append(bad, errors.New("singleProcessOOMKill must not be explicitly set to false when using cgroup v1"))
	}
	if k.ProtectKernelDefaults {
		bad = append(bad, kernelFaults(readSysctl))
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("agent: kubelet configuration: %w", err)
	}
	return nil
}

// settle makes of this process what the configuration wants of the kubelet's: how soon it
// is killed when memory runs out, how many files it may open, and what is profiled. What
// it may not is told, and no reason not to start, as upstream.
func (cfg *Config) settle() {
	k := cfg.Kubelet
	if k.OOMScoreAdj != nil {
		score := strconv.Itoa(int(*k.OOMScoreAdj))
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0); err != nil {
			cfg.Log.Warn("the configuration's oomScoreAdj can't be had", "err", err)
		}
	}
	if k.MaxOpenFiles > 0 {
		limit := unix.Rlimit{Cur: uint64(k.MaxOpenFiles), Max: uint64(k.MaxOpenFiles)}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			cfg.Log.Warn("the configuration's maxOpenFiles can't be had", "err", err)
		}
	}
	if k.EnableContentionProfiling && ptr.Deref(k.EnableProfilingHandler, true) {
		runtime.SetBlockProfileRate(1)
	}
}
