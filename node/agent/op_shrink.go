package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// shrink is which limits of memory a resize lowers, and to how much.
type shrink struct {
	// whole is the pod's as a whole, 0 when it isn't lowered.
	whole int64
	// containers are those of containers that keep running, by name.
	containers map[string]int64
}

// shrinks is what of the pod's memory a resize lowers, if that is what is begun now.
func (m *machine) shrinks(s plan.Step) shrink {
	box := m.now.Ready()
	if box == nil || s.Kind != plan.ResizeContainer && s.Kind != plan.ResizePod {
		return shrink{}
	}
	pod, out := m.allotted(), shrink{containers: map[string]int64{}}
	if have, known := m.given[box.ID]; known {
		out.whole = plan.LessMemory(plan.Given{Own: have.Own}, plan.Given{Own: plan.AskedWhole(pod).Own})
	}
	for _, c := range spec.Containers(pod) {
		now := m.now.LatestIn(c.Name, box.ID)
		if now == nil || now.State != actual.Running || plan.RestartsFor(c, corev1.ResourceMemory) {
			continue
		}
		have, known := m.given[now.ID]
		if !known {
			continue
		}
		if limit := plan.LessMemory(have, plan.Asked(pod, c)); limit > 0 {
			out.containers[c.Name] = limit
		}
	}
	return out
}

// roomToShrink fails when something uses more memory than it would be left. A kernel
// with cgroups of version 2 would kill processes until the rest fits, and a lower limit
// is no reason to die: so upstream asks first, and so long changes nothing of the pod.
// In between more may be used: it is the best that can be done, not a promise.
func (m *machine) roomToShrink(ctx context.Context, box string, to shrink) error {
	if box == "" || to.whole == 0 && len(to.containers) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := m.a.cfg.Engine.PodSandboxStats(ctx, &rt.PodSandboxStatsRequest{PodSandboxId: box})
	if cri.IsUnimplemented(err) {
		return nil // then it is for the engine, and the kernel, to refuse
	}
	if err != nil {
		return fmt.Errorf("read what memory the pod uses: %w", err)
	}
	return to.refusal(got.GetStats().GetLinux())
}

// refusal is why the limits can't be lowered with what is used now, nil if they can.
// The words are upstream's; that its number for a container is the whole pod's is a
// slip that is not followed.
func (s shrink) refusal(used *rt.LinuxPodSandboxStats) error {
	var why []string
	if n := used.GetMemory().GetUsageBytes(); s.whole > 0 && n == nil {
		why = append(why, "missing pod memory usage")
	} else if s.whole > 0 && n.GetValue() >= uint64(s.whole) { //nolint:gosec // limits are positive
		why = append(why, fmt.Sprintf("attempting to set pod memory limit (%d) below current usage (%d)", s.whole, n.GetValue()))
	}
	for _, c := range used.GetContainers() {
		name := c.GetAttributes().GetMetadata().GetName()
		limit, lowered := s.containers[name]
		if !lowered {
			continue
		}
		if n := c.GetMemory().GetUsageBytes(); n == nil {
			why = append(why, fmt.Sprintf("missing container %q memory usage", name))
		} else if n.GetValue() >= uint64(limit) { //nolint:gosec // limits are positive
			why = append(why, fmt.Sprintf("attempting to set container %q memory limit (%d) below current usage (%d)", name, limit, n.GetValue()))
		}
	}
	switch len(why) {
	case 0:
		return nil
	case 1:
		return errors.New("cannot decrease memory limits: " + why[0])
	}
	return errors.New("cannot decrease memory limits: [" + strings.Join(why, ", ") + "]")
}
