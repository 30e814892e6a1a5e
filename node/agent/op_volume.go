package agent

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/volume"
	"github.com/sampan-dev/sampan/node/volume/downward"
)

// mountRetry spaces attempts to prepare volumes; a change of an object that
// they need tries at once.
var mountRetry = backoff.Policy{Min: 2 * time.Second, Max: 2 * time.Minute}

// mountTimeout bounds one attempt, so that a hanging mount is told of.
const mountTimeout = 2 * time.Minute

// claimRetry is the longest pause while a claim can't be used: it is a matter of
// what others do, which a node may not watch.
const claimRetry = 10 * time.Second

// A claim that a provisioner has just bound says so in its status a moment later, which a
// pod that is already here shall not be warned of: it is looked at again soon, some times.
const (
	soonRetry = 200 * time.Millisecond
	soonTries = 5
)

// facts may be called from operations.
func (m *machine) facts(pod *corev1.Pod) downward.Facts {
	return downward.Facts{NodeName: m.a.cfg.NodeName, HostIPs: m.a.cfg.NodeIPs, PodIPs: m.podIPs(pod), Allocatable: m.a.node.Allocatable,
		MemoryLimit: spec.PodResources(pod, m.a.node).GetMemoryLimitInBytes()}
}

func (m *machine) podIPs(pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork {
		return m.a.cfg.NodeIPs
	}
	return m.ips()
}

func (m *machine) mountVolumes(ctx context.Context, pod *corev1.Pod, _ plan.Step) func(*machine) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, mountTimeout)
	defer cancel()
	set, err := m.a.volumes.Prepare(ctx, pod, m.facts(pod))
	throughout, unknown := m.a.throughout(ctx, pod, spec.Containers(pod)...)
	if unknown != nil {
		m.log.Debug("the status can't say yet which mounts are read-only throughout", "err", unknown)
	}
	if err == nil && len(pod.Spec.Volumes) > 0 {
		m.a.mark(m.uid, "mount volumes", "", begin)
	}
	return func(m *machine) {
		if throughout != nil {
			m.throughout = throughout
		}
		if err == nil {
			m.mounted, m.set, m.mountFail, m.holdMount = true, set, 0, time.Time{}
			return
		}
		m.mountFail++
		if !m.stale {
			m.holdMount = time.Now().Add(mountPause(err, m.mountFail))
		}
		if errors.Is(err, context.Canceled) || m.soon(err) {
			return
		}
		for _, one := range unjoin(err) {
			m.event(corev1.EventTypeWarning, volume.Reason(one), one.Error())
		}
	}
}

// allMounted: every volume that a container uses is there. An ephemeral container may
// use one that none did before.
func (m *machine) allMounted() bool { return m.mounted && m.set.Covers(m.pod) }

func mountPause(err error, failures int) time.Duration {
	pause := mountRetry.After(failures)
	var claims *volume.ClaimError
	if errors.As(err, &claims) {
		return min(pause, claimRetry)
	}
	return pause
}

// soon: what fails will work in a moment; it is tried again then.
func (m *machine) soon(err error) bool {
	var claims *volume.ClaimError
	if m.mountFail > soonTries || len(unjoin(err)) > 1 || !errors.As(err, &claims) || !claims.Soon {
		return false
	}
	m.holdMount = time.Now().Add(soonRetry)
	return true
}

// unjoin takes a joined error apart.
func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// refresh brings the contents of mounted volumes up to date: when an object has
// changed, and when a token nears its end.
func (m *machine) refresh(ctx context.Context, again *alarm) {
	if !m.allMounted() || m.ops[opRefresh] != nil {
		return
	}
	due := !m.set.Refresh.IsZero() && !time.Now().Before(m.set.Refresh)
	if !m.stale && !due {
		again.by(m.set.Refresh)
		return
	}
	m.stale = false
	pod, facts := m.pod, m.facts(m.pod)
	m.launch(ctx, opRefresh, plan.Step{}, func(ctx context.Context) func(*machine) {
		ctx, cancel := context.WithTimeout(ctx, mountTimeout)
		defer cancel()
		set, err := m.a.volumes.Prepare(ctx, pod, facts)
		return func(m *machine) {
			if err == nil {
				m.set = set
				return
			}
			m.log.Warn("can't refresh the pod's volumes; they keep their contents", "err", err)
			m.set.Refresh = time.Now().Add(mountRetry.Max)
		}
	})
}
