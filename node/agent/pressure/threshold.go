// Package pressure decides when a node is short of memory, disk, inodes or
// process numbers, and which pod has to go then. It is pure but for Machine,
// which reads the machine: the same observations at the same times come to the
// same decisions. Signals, order of eviction and texts are upstream's.
package pressure

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/agent/settings"
)

// Signal is something that a node can run out of.
type Signal string

// The signals. Allocatable is memory for pods, as opposed to the machine's.
const (
	Memory            Signal = "memory.available"
	Allocatable       Signal = "allocatableMemory.available"
	NodeFS            Signal = "nodefs.available"
	NodeFSInodes      Signal = "nodefs.inodesFree"
	ImageFS           Signal = "imagefs.available"
	ImageFSInodes     Signal = "imagefs.inodesFree"
	ContainerFS       Signal = "containerfs.available"
	ContainerFSInodes Signal = "containerfs.inodesFree"
	Pids              Signal = "pid.available"
)

// Names of what pods use that the API has no resource for.
const (
	inodes corev1.ResourceName = "inodes"
	pids   corev1.ResourceName = "pids"
)

// meaning is what a signal stands for: the node's condition, and what is
// reclaimed.
var meaning = map[Signal]struct {
	condition corev1.NodeConditionType
	resource  corev1.ResourceName
}{
	Memory:            {corev1.NodeMemoryPressure, corev1.ResourceMemory},
	Allocatable:       {corev1.NodeMemoryPressure, corev1.ResourceMemory},
	NodeFS:            {corev1.NodeDiskPressure, corev1.ResourceEphemeralStorage},
	NodeFSInodes:      {corev1.NodeDiskPressure, inodes},
	ImageFS:           {corev1.NodeDiskPressure, corev1.ResourceEphemeralStorage},
	ImageFSInodes:     {corev1.NodeDiskPressure, inodes},
	ContainerFS:       {corev1.NodeDiskPressure, corev1.ResourceEphemeralStorage},
	ContainerFSInodes: {corev1.NodeDiskPressure, inodes},
	Pids:              {corev1.NodePIDPressure, pids},
}

// Condition is the node condition that a signal raises.
func (s Signal) Condition() corev1.NodeConditionType { return meaning[s].condition }

// Resource is what a signal asks to reclaim.
func (s Signal) Resource() corev1.ResourceName { return meaning[s].resource }

// Disk says whether removing images and containers may help.
func (s Signal) Disk() bool { return meaning[s].condition == corev1.NodeDiskPressure }

// Amount is a quantity, or a part of the capacity.
type Amount struct {
	Quantity resource.Quantity
	// Part is of the capacity, from 0 to 1; 0 means that Quantity counts.
	Part float64
}

// Of is the amount when there is that much in all.
func (a Amount) Of(capacity int64) int64 {
	if a.Part > 0 {
		return int64(float64(capacity) * a.Part)
	}
	return a.Quantity.Value()
}

// Threshold is a bound of a signal from below.
type Threshold struct {
	Signal Signal
	Value  Amount
	// Grace is how long a soft threshold may be crossed; Hard ones have none.
	Grace time.Duration
	Hard  bool
	// Reclaim is how far above the threshold it must come to be left alone again.
	Reclaim Amount
}

// Observation is what there is of a signal.
type Observation struct{ Available, Capacity int64 }

// Observations are what was seen, by signal; a signal that isn't there isn't
// judged.
type Observations map[Signal]Observation

func (t Threshold) crossed(o Observation, reclaim bool) bool {
	bound := t.Value.Of(o.Capacity)
	if reclaim {
		bound += t.Reclaim.Of(o.Capacity)
	}
	return o.Available < bound
}

// Parse reads the thresholds of a complete configuration, hard ones first.
func Parse(k *settings.Kubelet) ([]Threshold, error) {
	list, err := statements(k.EvictionHard)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Hard = true
	}
	soft, err := statements(k.EvictionSoft)
	if err != nil {
		return nil, err
	}
	for i := range soft {
		text, ok := k.EvictionSoftGracePeriod[string(soft[i].Signal)]
		if !ok {
			return nil, fmt.Errorf("grace period must be specified for the soft eviction threshold %v", soft[i].Signal)
		}
		if soft[i].Grace, err = time.ParseDuration(text); err != nil || soft[i].Grace < 0 {
			return nil, fmt.Errorf("invalid eviction grace period specified: %v, must be a positive value", text)
		}
	}
	list = append(list, soft...)
	for signal, text := range k.EvictionMinimumReclaim {
		amount, err := parse(Signal(signal), text)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if amount != nil && list[i].Signal == Signal(signal) {
				list[i].Reclaim = *amount
			}
		}
	}
	if slices.Contains(k.EnforceNodeAllocatable, "pods") {
		for _, t := range slices.Clone(list) {
			if t.Hard && t.Signal == Memory {
				t.Signal = Allocatable
				list = append(list, t)
			}
		}
	}
	return list, nil
}

func statements(given map[string]string) ([]Threshold, error) {
	var list []Threshold
	for signal, text := range given {
		amount, err := parse(Signal(signal), text)
		if err != nil {
			return nil, err
		}
		if amount != nil {
			list = append(list, Threshold{Signal: Signal(signal), Value: *amount})
		}
	}
	slices.SortFunc(list, func(a, b Threshold) int { return cmp.Compare(a.Signal, b.Signal) })
	return list, nil
}

// parse reads one amount; nil is for 0 % and 100 %, which switch a threshold off.
func parse(signal Signal, text string) (*Amount, error) {
	if _, known := meaning[signal]; !known || signal == Allocatable {
		return nil, fmt.Errorf("unsupported eviction signal %v", signal)
	}
	if number, is := strings.CutSuffix(text, "%"); is {
		if text == "0%" || text == "100%" {
			return nil, nil //nolint:nilnil // nothing is an answer here
		}
		part, err := strconv.ParseFloat(number, 32)
		if err != nil {
			return nil, fmt.Errorf("eviction threshold %v: %w", signal, err)
		}
		if part < 0 || part > 100 {
			return nil, fmt.Errorf("eviction percentage threshold %v must be between 0%% and 100%%: %s", signal, text)
		}
		return &Amount{Part: part / 100}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return nil, fmt.Errorf("eviction threshold %v: %w", signal, err)
	}
	if q.Sign() <= 0 {
		return nil, fmt.Errorf("eviction threshold %v must be positive: %s", signal, text)
	}
	return &Amount{Quantity: q}, nil
}
