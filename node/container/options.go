package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// option is what a mount option means: a flag to set or clear, a propagation, or
// an attribute of a whole tree.
type option struct {
	set, clear  uintptr
	propagation uintptr
	all         uint64
	clearAll    uint64
	// filesystem says that it is of the whole filesystem, which a new one is told of.
	filesystem bool
}

// mountOption is what an option of fstab means that is a flag to the kernel.
// Everything else belongs to the filesystem.
func mountOption(name string) (option, bool) {
	o, ok := mountOptions()[name]
	return o, ok
}

// MountOptions are the names of all options that are not the filesystem's own.
func MountOptions() []string {
	return slices.Sorted(maps.Keys(mountOptions()))
}

var mountOptions = sync.OnceValue(func() map[string]option {
	const msNosymfollow = 256
	return map[string]option{
		"defaults": {}, "ro": {set: unix.MS_RDONLY}, "rw": {clear: unix.MS_RDONLY},
		"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
		"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
		"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
		"noatime": {set: unix.MS_NOATIME}, "atime": {clear: unix.MS_NOATIME},
		"nodiratime": {set: unix.MS_NODIRATIME}, "diratime": {clear: unix.MS_NODIRATIME},
		"relatime": {clear: unix.MS_NOATIME}, "norelatime": {},
		"strictatime": {set: unix.MS_STRICTATIME}, "nostrictatime": {clear: unix.MS_STRICTATIME},
		"nosymfollow": {set: msNosymfollow}, "symfollow": {clear: msNosymfollow},
		"remount": {},
		"sync":    {filesystem: true}, "async": {filesystem: true}, "dirsync": {filesystem: true},
		"lazytime": {filesystem: true}, "nolazytime": {filesystem: true}, "mand": {filesystem: true}, "nomand": {filesystem: true},
		"silent": {}, "loud": {}, "iversion": {}, "noiversion": {}, // no matter of the kernel's any more
		"shared": {propagation: unix.MS_SHARED}, "rshared": {propagation: unix.MS_SHARED | unix.MS_REC},
		"slave": {propagation: unix.MS_SLAVE}, "rslave": {propagation: unix.MS_SLAVE | unix.MS_REC},
		"private": {propagation: unix.MS_PRIVATE}, "rprivate": {propagation: unix.MS_PRIVATE | unix.MS_REC},
		"unbindable": {propagation: unix.MS_UNBINDABLE}, "runbindable": {propagation: unix.MS_UNBINDABLE | unix.MS_REC},
		"rro": {all: unix.MOUNT_ATTR_RDONLY}, "rrw": {clearAll: unix.MOUNT_ATTR_RDONLY},
		"rnosuid": {all: unix.MOUNT_ATTR_NOSUID}, "rsuid": {clearAll: unix.MOUNT_ATTR_NOSUID},
		"rnodev": {all: unix.MOUNT_ATTR_NODEV}, "rdev": {clearAll: unix.MOUNT_ATTR_NODEV},
		"rnoexec": {all: unix.MOUNT_ATTR_NOEXEC}, "rexec": {clearAll: unix.MOUNT_ATTR_NOEXEC},
		"rnodiratime": {all: unix.MOUNT_ATTR_NODIRATIME}, "rdiratime": {clearAll: unix.MOUNT_ATTR_NODIRATIME},
		"rnosymfollow": {all: unix.MOUNT_ATTR_NOSYMFOLLOW}, "rsymfollow": {clearAll: unix.MOUNT_ATTR_NOSYMFOLLOW},
		// The kernel has one field for these, of which relatime is zero.
		"rnoatime":     {all: unix.MOUNT_ATTR_NOATIME, clearAll: unix.MOUNT_ATTR__ATIME},
		"rstrictatime": {all: unix.MOUNT_ATTR_STRICTATIME, clearAll: unix.MOUNT_ATTR__ATIME},
		"rrelatime":    {clearAll: unix.MOUNT_ATTR__ATIME}, "rnorelatime": {clearAll: unix.MOUNT_ATTR__ATIME},
		"ratime": {clearAll: unix.MOUNT_ATTR__ATIME}, "rnostrictatime": {clearAll: unix.MOUNT_ATTR__ATIME},
	}
})

// planMount translates one mount of a runtime spec.
func planMount(in specs.Mount) (plan.Mount, error) {
	out := plan.Mount{Source: in.Source, Target: in.Destination, Type: in.Type}
	var data []string
	for _, name := range in.Options {
		switch name {
		case "bind":
			out.Bind = true
			continue
		case "rbind":
			out.Bind, out.Recursive = true, true
			continue
		case "idmap":
			out.IDMap = true
			continue
		case "ridmap":
			out.IDMap, out.IDMapTree = true, true
			continue
		case "tmpcopyup":
			if in.Type != "tmpfs" {
				return out, fmt.Errorf("mount on %q: option %q is for a tmpfs, not for %q", in.Destination, name, in.Type)
			}
			out.CopyUp = true
			continue
		}
		if label, ok := strings.CutPrefix(name, "context="); ok {
			out.Context = strings.Trim(label, `"`)
			continue
		}
		o, ok := mountOption(name)
		if !ok {
			data = append(data, name)
			continue
		}
		if o.filesystem {
			data = append(data, name)
		}
		out.Flags = out.Flags&^o.clear | o.set
		out.Clear = out.Clear&^o.set | o.clear
		if o.all|o.clearAll != 0 { // the last that is said of one attribute holds
			out.SetAll = out.SetAll&^o.clearAll | o.all
			out.ClearAll = (out.ClearAll&^o.all | o.clearAll)
		}
		if o.propagation != 0 {
			out.Propagation = append(out.Propagation, o.propagation)
		}
	}
	out.Data = strings.Join(data, ",")
	if in.Type == "bind" && !out.Bind {
		out.Bind = true
	}
	if len(in.UIDMappings)+len(in.GIDMappings) > 0 {
		out.IDMap = true // with which mapping: see mapMount
	}
	return out, nil
}

// propagationFlag translates linux.rootfsPropagation.
func propagationFlag(name string) (uintptr, error) {
	if name == "" {
		return 0, nil
	}
	o, ok := mountOption(name)
	if !ok || o.propagation == 0 {
		return 0, fmt.Errorf("rootfs propagation %q is not known", name)
	}
	return o.propagation, nil
}

// capability names in the order of their numbers.
var capabilityNames = strings.Fields(`
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// AllCapabilities are the names of every capability, with their CAP_.
func AllCapabilities() []string {
	out := make([]string, len(capabilityNames))
	for i, n := range capabilityNames {
		out[i] = "CAP_" + n
	}
	return out
}

// capMask is a set as one number, and the names in it that nobody knows.
func capMask(names []string) (mask uint64, unknown []string) {
	for _, n := range names {
		short := strings.TrimPrefix(strings.ToUpper(n), "CAP_")
		if i := slices.Index(capabilityNames, short); i >= 0 {
			mask |= 1 << i
		} else {
			unknown = append(unknown, n)
		}
	}
	return mask, unknown
}

// planCaps translates process.capabilities, and says which of them can't be granted and
// why: the specification wants a word for each, and the container to go on without.
func planCaps(c *specs.LinuxCapabilities) (out *plan.Caps, ungranted []string) {
	out = &plan.Caps{}
	if c == nil {
		return out, nil
	}
	told := map[string]bool{}
	for _, set := range []struct {
		in  []string
		out *uint64
	}{
		{c.Bounding, &out.Bounding}, {c.Effective, &out.Effective}, {c.Permitted, &out.Permitted},
		{c.Inheritable, &out.Inheritable}, {c.Ambient, &out.Ambient},
	} {
		mask, unknown := capMask(set.in)
		*set.out = mask
		for _, n := range unknown {
			if !told[n] {
				told[n] = true
				ungranted = append(ungranted, fmt.Sprintf("capability %q is not known", n))
			}
		}
	}
	// Ambient is what is permitted and inheritable as well (capabilities(7)).
	lost := out.Ambient &^ (out.Permitted & out.Inheritable)
	out.Ambient &^= lost
	var names []string
	for i, n := range capabilityNames {
		if lost&(1<<i) != 0 {
			names = append(names, "CAP_"+n)
		}
	}
	if len(names) > 0 { // in one line: buildah's containers ask for ten that they can't have
		ungranted = append(ungranted, fmt.Sprintf("can't raise ambient capability %s: not both permitted and inheritable", strings.Join(names, ", ")))
	}
	return out, ungranted
}

// rlimitNames in the order of their numbers.
var rlimitNames = strings.Fields(`CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE
NICE RTPRIO RTTIME`)

func planRlimits(in []specs.POSIXRlimit) ([]plan.Rlimit, error) {
	var out []plan.Rlimit
next:
	for _, l := range in {
		if l.Soft > l.Hard {
			return nil, fmt.Errorf("rlimit %q: the soft limit %d is above the hard one, %d", l.Type, l.Soft, l.Hard)
		}
		for i, known := range rlimitNames {
			if strings.TrimPrefix(l.Type, "RLIMIT_") == known {
				out = append(out, plan.Rlimit{Type: i, Soft: l.Soft, Hard: l.Hard})
				continue next
			}
		}
		return nil, fmt.Errorf("rlimit %q is not known", l.Type)
	}
	return out, nil
}
