package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Annotations by which sampan's own engine gives a pod's containers what pods have no
// word for: see node/engine/spec. Limits of processes are NAME=SOFT:HARD with commas
// between them.
const (
	ulimitsAnnotation = "sampan.dev/ulimits"
	pidsAnnotation    = "sampan.dev/pids-limit"
)

// limitFlags are how much of the machine a container may use.
type limitFlags struct {
	memory, memorySwap, reservation, shares string
	cpus, cpuset                            string
	quota, period, pids                     int64
	storage, ulimits                        []string
}

// limitFlagsOf are their flags.
func limitFlagsOf(cmd *cobra.Command, l *limitFlags) {
	flags := cmd.Flags()
	flags.StringVarP(&l.memory, "memory", "m", "", "most memory that it may use, such as 512m")
	flags.StringVar(&l.memorySwap, "memory-swap", "", "nothing: containers do not swap")
	flags.StringVar(&l.reservation, "memory-reservation", "", "memory that the machine must have for it, such as 256m")
	flags.StringVar(&l.cpus, "cpus", "", "most processors that it may use, such as 1.5")
	flags.Int64Var(&l.quota, "cpu-quota", 0, "most microseconds of processors in --cpu-period: --cpus in other words")
	flags.Int64Var(&l.period, "cpu-period", 0, "microseconds that --cpu-quota is of (default 100000)")
	flags.StringVarP(&l.shares, "cpu-shares", "c", "", "its share of busy processors: 1024 is one processor, which the machine must have for it")
	flags.StringVar(&l.cpuset, "cpuset-cpus", "", "refused: which processors is the node's choice")
	hide(flags, "cpuset-cpus")
	flags.Int64Var(&l.pids, "pids-limit", 0, "most processes that it may have; -1 for as many as its node lets a pod have")
	flags.StringArrayVar(&l.ulimits, "ulimit", nil, "NAME=SOFT[:HARD]: a limit of its processes, such as nofile=1024:4096; -1 for none")
	flags.StringArrayVar(&l.storage, "storage-opt", nil, "size=BYTES: most that it may write beside its volumes; it is ended when it does more")
}

// limits are those flags in a pod. Nothing is reserved that was not asked for, as
// docker reserves nothing.
func (b *podBuilder) limits() error {
	l := b.flags.limits
	limits, requests := corev1.ResourceList{}, corev1.ResourceList{}
	if err := l.memoryInto(limits, requests); err != nil {
		return err
	}
	if err := l.processorsInto(limits, requests); err != nil {
		return err
	}
	if l.memorySwap != "" {
		b.note("--memory-swap %s is left out: containers do not swap", l.memorySwap)
	}
	for _, text := range l.storage {
		value, ok := strings.CutPrefix(text, "size=")
		if !ok {
			return fmt.Errorf("--storage-opt %q: want size=BYTES", text)
		}
		n, err := bytesOf(value)
		if err != nil {
			return fmt.Errorf("--storage-opt %q: %w", text, err)
		}
		limits[corev1.ResourceEphemeralStorage], requests[corev1.ResourceEphemeralStorage] = n, resource.Quantity{}
	}
	if len(limits)+len(requests) > 0 {
		b.c.Resources = corev1.ResourceRequirements{Requests: requests}
		if len(limits) > 0 {
			b.c.Resources.Limits = limits
		}
	}
	return b.processLimits()
}

// leastMemory is the least that --memory may be.
const leastMemory = 6 << 20

// memoryInto reads --memory and its like.
func (l limitFlags) memoryInto(limits, requests corev1.ResourceList) error {
	if l.memory != "" {
		n, err := bytesOf(l.memory)
		if err != nil {
			return fmt.Errorf("--memory %q: %w", l.memory, err)
		}
		if n.Value() < leastMemory {
			return fmt.Errorf("--memory %s: no process begins with so little: want at least %dm, as docker does", l.memory, leastMemory>>20)
		}
		limits[corev1.ResourceMemory], requests[corev1.ResourceMemory] = n, resource.Quantity{}
	}
	if l.reservation == "" {
		return nil
	}
	n, err := bytesOf(l.reservation)
	if err != nil {
		return fmt.Errorf("--memory-reservation %q: %w", l.reservation, err)
	}
	if most, limited := limits[corev1.ResourceMemory]; limited && n.Cmp(most) > 0 {
		return fmt.Errorf("--memory-reservation %s is more than --memory %s", l.reservation, l.memory)
	}
	requests[corev1.ResourceMemory] = n
	return nil
}

// Docker's period of quotas, in microseconds, and what is one processor among shares.
const (
	quotaPeriod = 100_000
	oneShare    = 1024
)

// processorsInto reads --cpus and its like.
func (l limitFlags) processorsInto(limits, requests corev1.ResourceList) error {
	if l.cpuset != "" {
		return fmt.Errorf("--cpuset-cpus %s is not possible: which processors is the node's choice; a pod that asks for whole ones has them alone where the node's cpuManagerPolicy is static", l.cpuset)
	}
	milli := int64(0)
	switch {
	case l.cpus != "" && l.quota != 0:
		return errors.New("--cpus and --cpu-quota exclude each other")
	case l.cpus != "":
		n, err := strconv.ParseFloat(l.cpus, 64)
		if err != nil || n <= 0 || n > 100_000 {
			return fmt.Errorf("--cpus %q: want a number such as 1.5", l.cpus)
		}
		milli = int64(n*1000 + 0.5)
	case l.quota < 0 || l.period < 0 || l.quota > 1<<40:
		return fmt.Errorf("--cpu-quota=%d --cpu-period=%d: want microseconds", l.quota, l.period)
	case l.quota > 0:
		milli = max(1, l.quota*1000/cmp.Or(l.period, quotaPeriod))
	}
	if milli > 0 {
		limits[corev1.ResourceCPU], requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI), resource.Quantity{}
	}
	if l.shares == "" || l.shares == "0" {
		return nil
	}
	shares, err := strconv.ParseInt(l.shares, 10, 32)
	if err != nil || shares < 0 {
		return fmt.Errorf("--cpu-shares %q: want a number, where %d is one processor", l.shares, oneShare)
	}
	asked := max(1, shares*1000/oneShare)
	if milli > 0 && asked > milli {
		return fmt.Errorf("--cpu-shares %s is more than --cpus gives: a share of %d is one processor", l.shares, oneShare)
	}
	requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(asked, resource.DecimalSI)
	return nil
}

// processLimits are --ulimit and --pids-limit, which our engine reads in annotations.
func (b *podBuilder) processLimits() error {
	var all []string
	for _, text := range b.flags.limits.ulimits {
		u, err := ulimit(text)
		if err == nil && slices.Contains([]string{"nice", "rtprio", "rttime"}, u.Name) {
			err = errors.New("a container does not choose its own priority")
		}
		if err != nil {
			return fmt.Errorf("--ulimit %q: %w", text, err)
		}
		all = append(all, fmt.Sprintf("%s=%d:%d", u.Name, int64(u.Soft), int64(u.Hard))) //nolint:gosec // -1 is no limit
	}
	if len(all) > 0 {
		b.pod.Annotations[ulimitsAnnotation] = strings.Join(all, ",")
	}
	switch n := b.flags.limits.pids; {
	case n < -1:
		return fmt.Errorf("--pids-limit=%d: want a number of processes, or -1 for as many as the node allows", n)
	case n > 0:
		b.pod.Annotations[pidsAnnotation] = strconv.FormatInt(n, 10)
	}
	return nil
}

// bytesOf reads docker's 512m, where m is a MiB, or Kubernetes' 512Mi.
func bytesOf(text string) (resource.Quantity, error) {
	units := map[string]int{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
	digits := strings.TrimRight(text, "bkmgtBKMGT")
	unit := strings.ToLower(text[len(digits):])
	if len(unit) == 2 {
		unit = strings.TrimSuffix(unit, "b")
	}
	shift, ok := units[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if ok && err == nil && n > 0 && n < 1<<40 {
		return *resource.NewQuantity(int64(n*float64(int64(1)<<shift)), resource.BinarySI), nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() <= 0 {
		return q, fmt.Errorf("want a size such as 512m or 1Gi")
	}
	return q, nil
}
