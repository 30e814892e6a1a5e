package agent

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/class"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// enforced is one reservation and the cgroup that is held to it.
type enforced struct {
	what, group string
	limits      class.Limits
}

// enforcements are what enforceNodeAllocatable asks for beside pods: the cgroups of the
// system and of Kubernetes' own parts get no more than is reserved for them; of what can
// be compressed alone, processor time.
func enforcements(k *settings.Kubelet) ([]enforced, error) {
	var out []enforced
	for _, key := range k.EnforceNodeAllocatable {
		what, compressible := strings.CutSuffix(key, "-compressible")
		e := enforced{what: what}
		var list map[string]string
		switch what {
		case "system-reserved":
			e.group, list = k.SystemReservedCgroup, k.SystemReserved
		case "kube-reserved":
			e.group, list = k.KubeReservedCgroup, k.KubeReserved
		default:
			continue
		}
		reserved, err := settings.Reservation(list)
		if err != nil {
			return nil, err
		}
		if cpu := reserved.Cpu(); !cpu.IsZero() {
			e.limits.Shares = spec.Shares(cpu.MilliValue())
		}
		if !compressible {
			pids := reserved["pid"]
			e.limits.Memory, e.limits.Pids = reserved.Memory().Value(), pids.Value()
		}
		out = append(out, e)
	}
	return out, nil
}

// enforceOthers does so, and tells of it as events of the node.
func (a *Agent) enforceOthers() error {
	list, err := enforcements(a.cfg.Kubelet)
	if err != nil {
		return fmt.Errorf("agent: reservations: %w", err)
	}
	for _, e := range list {
		if err := class.Existing(a.cfg.CgroupMount, e.group, e.limits); err != nil {
			a.events.EventRef(a.registry.Reference(), corev1.EventTypeWarning, "FailedNodeAllocatableEnforcement", fmt.Sprintf("Failed to enforce %s limits on %q: %v", e.what, e.group, err))
			return fmt.Errorf("agent: enforceNodeAllocatable: %s: %w", e.what, err)
		}
		a.events.EventRef(a.registry.Reference(), corev1.EventTypeNormal, "NodeAllocatableEnforced", fmt.Sprintf("Updated limits on %s cgroup %s", strings.ReplaceAll(e.what, "-", " "), e.group))
	}
	return nil
}
