package container

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// timeLinux is the first Linux that lets the program which a process becomes begin in the
// time namespace that the process has made: with those before, only its children do.
var timeLinux = [2]int{6, 1} //nolint:gochecknoglobals // a constant

// planTime translates linux.timeOffsets, for whose sake there must be a new namespace.
func planTime(p *plan.Plan, offsets map[string]specs.LinuxTimeOffset) error {
	made := p.Unshare&unix.CLONE_NEWTIME != 0
	if made && !linuxSince(timeLinux) {
		return fmt.Errorf("a time namespace needs Linux %d.%d", timeLinux[0], timeLinux[1])
	}
	if len(offsets) > 0 && !made {
		return errors.New("time offsets without a new time namespace")
	}
	for _, clock := range slices.Sorted(maps.Keys(offsets)) {
		if clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("time offset of clock %q: must be of monotonic or boottime", clock)
		}
		p.TimeOffsets += fmt.Sprintf("%s %d %d\n", clock, offsets[clock].Secs, offsets[clock].Nanosecs)
	}
	return nil
}

// timeOf is how a further process gets into the time namespace of a container, which a
// created one is not yet in itself.
func timeOf(pid int) plan.Join {
	return plan.Join{Path: fmt.Sprintf("/proc/%d/ns/time_for_children", pid), Flag: unix.CLONE_NEWTIME}
}

// hasTime says whether a container is not in the time namespace of whoever makes it.
func hasTime(p *plan.Plan) bool {
	return p.Unshare&unix.CLONE_NEWTIME != 0 ||
		slices.ContainsFunc(p.Joins, func(j plan.Join) bool { return j.Flag == unix.CLONE_NEWTIME })
}

// linuxSince says whether the kernel is as new as that.
func linuxSince(v [2]int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	if _, err := fmt.Fscanf(strings.NewReader(unix.ByteSliceToString(u.Release[:])), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > v[0] || major == v[0] && minor >= v[1]
}
