package cgroup

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// convert translates the resources of a runtime spec.
func convert(r *specs.LinuxResources, unified bool, log *slog.Logger) (*cgroups.Resources, error) {
	out := &cgroups.Resources{}
	r, err := possible(r, unified, offered, log)
	if err != nil {
		return nil, err
	}
	rules, err := deviceRules(r.Devices)
	if err != nil {
		return nil, err
	}
	out.Devices = rules
	convertMemory(out, r.Memory)
	convertCPU(out, r.CPU, unified)
	if r.Pids != nil && r.Pids.Limit != nil {
		out.PidsLimit = r.Pids.Limit
	}
	if err := convertBlockIO(out, r.BlockIO); err != nil {
		return nil, err
	}
	for _, h := range r.HugepageLimits {
		out.HugetlbLimit = append(out.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
	}
	out.Unified = r.Unified
	return out, nil
}

// Possible are the limits of r that this machine can have, in the words of its version of
// cgroups. Open leaves the others out by itself, and says so; other runtimes refuse a container
// for them, also for a limit of no huge pages, which a kubelet gives to every container.
func Possible(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	return possible(r, cgroups.IsCgroup2UnifiedMode(), offered, slog.New(slog.DiscardHandler))
}

// possible says what it leaves out: huge pages without their controller, and with v1 what only
// the unified hierarchy has.
func possible(r *specs.LinuxResources, unified bool, has func(root, controller string, unified bool) bool, log *slog.Logger) (*specs.LinuxResources, error) {
	if r == nil {
		return &specs.LinuxResources{}, nil
	}
	out := *r
	if len(r.HugepageLimits) > 0 && !has(root, "hugetlb", unified) {
		tell := log.Debug // a kubelet says of each container that it may have none
		if slices.ContainsFunc(r.HugepageLimits, func(h specs.LinuxHugepageLimit) bool { return h.Limit > 0 }) {
			tell = log.Warn
		}
		tell("huge page limits are left out: the machine has no hugetlb controller")
		out.HugepageLimits = nil
	}
	if unified {
		return &out, nil
	}
	out.Unified = nil
	return &out, unifiedOnV1(&out, r.Unified, log)
}

// offered says whether the machine has a controller that not every kernel has. With v1 a
// directory of its name is not enough: it may be left of a hierarchy that was mounted.
func offered(root, controller string, unified bool) bool {
	if unified {
		list, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		return err == nil && slices.Contains(strings.Fields(string(list)), controller)
	}
	return fsType(filepath.Join(root, controller)) == unix.CGROUP_SUPER_MAGIC
}

func convertMemory(out *cgroups.Resources, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	set(&out.Memory, m.Limit)
	set(&out.MemoryReservation, m.Reservation)
	set(&out.MemorySwap, m.Swap)
	set(&out.OomKillDisable, m.DisableOOMKiller)
	out.MemorySwappiness = m.Swappiness
	set(&out.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
}

func convertCPU(out *cgroups.Resources, c *specs.LinuxCPU, unified bool) {
	if c == nil {
		return
	}
	set(&out.CpuShares, c.Shares)
	if unified {
		out.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(out.CpuShares)
	}
	set(&out.CpuQuota, c.Quota)
	set(&out.CpuPeriod, c.Period)
	out.CpuBurst = c.Burst
	set(&out.CpuRtRuntime, c.RealtimeRuntime)
	set(&out.CpuRtPeriod, c.RealtimePeriod)
	out.CpusetCpus, out.CpusetMems = c.Cpus, c.Mems
	out.CPUIdle = c.Idle
}

func convertBlockIO(out *cgroups.Resources, b *specs.LinuxBlockIO) error {
	if b == nil {
		return nil
	}
	set(&out.BlkioWeight, b.Weight)
	set(&out.BlkioLeafWeight, b.LeafWeight)
	for _, w := range b.WeightDevice {
		var weight, leaf uint16
		set(&weight, w.Weight)
		set(&leaf, w.LeafWeight)
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, cgroups.NewWeightDevice(w.Major, w.Minor, weight, leaf))
	}
	for _, t := range []struct {
		in  []specs.LinuxThrottleDevice
		out *[]*cgroups.ThrottleDevice
	}{
		{b.ThrottleReadBpsDevice, &out.BlkioThrottleReadBpsDevice},
		{b.ThrottleWriteBpsDevice, &out.BlkioThrottleWriteBpsDevice},
		{b.ThrottleReadIOPSDevice, &out.BlkioThrottleReadIOPSDevice},
		{b.ThrottleWriteIOPSDevice, &out.BlkioThrottleWriteIOPSDevice},
	} {
		for _, d := range t.in {
			*t.out = append(*t.out, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
		}
	}
	return nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// deviceRules are the spec's rules and then those that every container needs.
// Without any rule of the spec everything else is denied.
func deviceRules(in []specs.LinuxDeviceCgroup) ([]*devices.Rule, error) {
	if len(in) == 0 {
		in = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	}
	var out []*devices.Rule
	all := false
	for _, d := range in {
		r, err := deviceRule(d)
		if err != nil {
			return nil, err
		}
		all = r.Type == devices.WildcardDevice && r.Allow
		out = append(out, r)
	}
	if all {
		return out, nil
	}
	for _, a := range always() {
		r, err := deviceRule(a)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func deviceRule(d specs.LinuxDeviceCgroup) (*devices.Rule, error) {
	r := &devices.Rule{
		Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard,
		Permissions: devices.Permissions(d.Access), Allow: d.Allow,
	}
	if d.Type != "" && d.Type != "a" {
		r.Type = devices.Type(d.Type[0])
	}
	if !r.Type.CanCgroup() {
		return nil, fmt.Errorf("device rule %q: type must be a, b or c", d.Type)
	}
	if d.Major != nil {
		r.Major = *d.Major
	}
	if d.Minor != nil {
		r.Minor = *d.Minor
	}
	if r.Type == devices.WildcardDevice {
		r.Major, r.Minor, r.Permissions = devices.Wildcard, devices.Wildcard, "rwm"
	}
	if r.Permissions == "" {
		r.Permissions = "rwm"
	}
	// In whatever order it is said: device plugins and kubelets say "mrw".
	r.Permissions = r.Permissions.Union("")
	if strings.Trim(d.Access, "rwm") != "" {
		return nil, fmt.Errorf("device rule: access %q: want some of r, w and m", d.Access)
	}
	return r, nil
}

// always lists the devices that a container may use whatever its rules say, and
// that it may make nodes of any device that it then cannot open.
func always() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	const any = -1
	return []specs.LinuxDeviceCgroup{
		rule("c", any, any, "m"), rule("b", any, any, "m"),
		rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"),
		rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"),
		rule("c", 5, 0, "rwm"), rule("c", 5, 1, "rwm"), rule("c", 5, 2, "rwm"),
		rule("c", 136, any, "rwm"),
	}
}
