package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/utils/ptr"
)

// kernelWants are the settings of the kernel that upstream's kubelet has it keep
// (setupKernelTunables of its container manager).
var kernelWants = map[string]string{
	"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
	"kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
}

// kernelFaults are the kernel's settings that are not what is insisted on.
func kernelFaults(read func(name string) (string, error)) error {
	return eachUnwanted(read, func(name, want, have string) error {
		return fmt.Errorf("protectKernelDefaults: invalid kernel flag: %s, expected value: %s, actual value: %s", strings.ReplaceAll(name, ".", "/"), want, have)
	})
}

// eachUnwanted calls do for each of the kernel's settings that is not as wanted, by name.
func eachUnwanted(read func(name string) (string, error), do func(name, want, have string) error) error {
	var bad []error
	for _, name := range slices.Sorted(maps.Keys(kernelWants)) {
		have, err := read(name)
		switch want := kernelWants[name]; {
		case err != nil:
			bad = append(bad, fmt.Errorf("protectKernelDefaults: %w", err))
		case have != want:
			bad = append(bad, do(name, want, have))
		}
	}
	return errors.Join(bad...)
}

// tune makes the kernel's settings what the kubelet wants, and tells what each was.
func (cfg *Config) tune(read func(name string) (string, error), write func(name, value string) error) error {
	return eachUnwanted(read, func(name, want, have string) error {
		if err := write(name, want); err != nil {
			return fmt.Errorf("protectKernelDefaults: set %s: %w", name, err)
		}
		cfg.Log.Warn("the kernel is set as the kubelet configuration asks (protectKernelDefaults: false)", "setting", name, "is", want, "was", have)
		return nil
	})
}

func sysctlFile(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

func readSysctl(name string) (string, error) {
	text, err := os.ReadFile(sysctlFile(name))
	return strings.TrimSpace(string(text)), err
}

func writeSysctl(name, value string) error {
	return os.WriteFile(sysctlFile(name), []byte(value), 0)
}

// fits says what of the machine is not as the configuration wants it, and can't be made so.
// It is asked of whole nodes alone.
func (cfg *Config) fits() error {
	k := cfg.Kubelet
	var bad []error
	if *k.FailCgroupV1 && !cfg.unified() {
		bad = append(bad, errors.New("failCgroupV1: kubelet is configured to not run on a host using cgroup v1"))
	}
	if !cfg.unified() && k.SingleProcessOOMKill != nil && !*k.SingleProcessOOMKill {
		bad = append(bad, errors.New("singleProcessOOMKill must not be explicitly set to false when using cgroup v1"))
	}
	switch {
	case k.ProtectKernelDefaults:
		bad = append(bad, kernelFaults(readSysctl))
	case cfg.TuneKernel:
		bad = append(bad, cfg.tune(readSysctl, writeSysctl))
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
