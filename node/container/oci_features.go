package container

import specs "github.com/opencontainers/runtime-spec/specs-go"

// SeccompActions are the actions that a seccomp profile may name here.
func SeccompActions() []string {
	return names(specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno,
		specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify)
}

// SeccompOperators are the comparisons that a seccomp profile may make here.
func SeccompOperators() []string {
	return names(specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual,
		specs.OpGreaterThan, specs.OpMaskedEqual)
}

// SeccompFlags are the flags that a seccomp profile may have here.
func SeccompFlags() []string {
	return names(specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv,
		"SECCOMP_FILTER_FLAG_TSYNC")
}

func names[T ~string](all ...T) []string {
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = string(n)
	}
	return out
}
