package spec

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// capabilityNames are in the kernel's order: the index is the number.
var capabilityNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
	"CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
	"CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCapabilities are Docker's.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	"CAP_AUDIT_WRITE",
}

// HostCapabilities are those in this process's bounding set: nobody can give
// more than that.
func HostCapabilities() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		hex, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read own capabilities: %w", err)
		}
		var out []string
		for i, name := range capabilityNames {
			if bits&(1<<i) != 0 {
				out = append(out, name)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("/proc/self/status has no line CapBnd")
}

// capabilities begins with Docker's set, with everything for "add ALL" or with nothing
// for "drop ALL", adds what is named, and then drops what is named: dropped is dropped,
// from all sets, and "drop ALL, add NET_BIND_SERVICE" is one capability.
func capabilities(sc *rt.LinuxContainerSecurityContext, host []string) (*specs.LinuxCapabilities, error) {
	if sc.GetPrivileged() {
		return &specs.LinuxCapabilities{Bounding: host, Effective: host, Permitted: host}, nil
	}
	c := sc.GetCapabilities()
	add, addAll, err := capabilityList(c.GetAddCapabilities())
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := capabilityList(c.GetDropCapabilities())
	if err != nil {
		return nil, err
	}
	ambient, _, err := capabilityList(c.GetAddAmbientCapabilities())
	if err != nil {
		return nil, err
	}
	set := defaultCapabilities
	switch {
	case dropAll:
		set = nil
	case addAll:
		set = host
	}
	set = slices.Clone(set)
	for _, name := range slices.Concat(add, ambient) {
		if !slices.Contains(set, name) {
			set = append(set, name)
		}
	}
	denied := func(name string) bool { return !slices.Contains(host, name) || slices.Contains(drop, name) }
	set, ambient = slices.DeleteFunc(set, denied), slices.DeleteFunc(ambient, denied)
	return &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set, Inheritable: ambient, Ambient: ambient}, nil
}

func capabilityList(names []string) (out []string, all bool, err error) {
	for _, name := range names {
		name = strings.ToUpper(name)
		if name == "ALL" || name == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(capabilityNames, name) {
			return nil, false, fmt.Errorf("capability %q is unknown: %w", name, ErrInvalid)
		}
		out = append(out, name)
	}
	return out, all, nil
}
