package plan

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Killed are the ids of containers that were killed while they ran; the value says
// that it was to start them anew (Step.Again).
type Killed map[string]bool

// Has reports whether that container was killed.
func (k Killed) Has(id string) bool {
	_, ok := k[id]
	return ok
}

// fault is why a running container is killed; the zero value is none.
type fault struct {
	// why is the event's text, empty for the usual one.
	why string
	// grace replaces the pod's when not nil.
	grace *int64
	// again: it is killed to be started anew.
	again bool
}

// keep looks after one running container: it is killed when unfit.
func (p *planner) keep(c *corev1.Container, now *actual.Container) {
	f := p.unfit(c, now)
	if p.isInit(c.Name) {
		f = p.unfitInit(c, now)
	}
	if f.why == "" {
		p.resize(c, now)
		return
	}
	p.kill(now, f, p.grace(f.grace))
}

// unfit says why a regular container must be replaced. A changed definition replaces
// it whatever the policy; a failed probe only where the policy has it come back. In
// a pod that never restarts upstream tells no reason and forgets the probe's own
// grace period, since it then stops the whole pod; here both are kept.
func (p *planner) unfit(c *corev1.Container, now *actual.Container) fault {
	switch v := p.Verdicts[now.ID]; {
	case now.State == actual.Unknown:
		return fault{why: fmt.Sprintf("Container is in %q state, try killing it before restart", now.State), again: true}
	case changed(c, now):
		return fault{why: fmt.Sprintf("Container %s definition changed, will be restarted", c.Name), again: true}
	case v.Failed != "":
		f := fault{why: fmt.Sprintf("Container %s failed %s probe", c.Name, v.Failed), grace: v.Grace, again: mayRestart(p.Pod, c)}
		if f.again {
			f.why += ", will be restarted"
		}
		return f
	case p.mustRestartToResize(c, now):
		return fault{why: fmt.Sprintf("Container %s resize requires restart", c.Name), again: true}
	}
	return fault{}
}

// unfitInit says why an init container must be replaced. One that isn't a sidecar
// has no probes, and what has begun with another definition comes to its end.
func (p *planner) unfitInit(c *corev1.Container, now *actual.Container) fault {
	switch v := p.Verdicts[now.ID]; {
	case now.State == actual.Unknown:
		return fault{why: fmt.Sprintf("Init container is in %q state, try killing it before restart", now.State), again: mayRestart(p.Pod, c)}
	case !spec.Sidecar(c):
		return fault{}
	case v.Failed != "":
		return fault{why: fmt.Sprintf("Init container %s failed %s probe", c.Name, v.Failed), grace: v.Grace, again: true}
	case v.Started && changed(c, now):
		return fault{why: fmt.Sprintf("Init container %s definition changed", c.Name), again: true}
	case p.mustRestartToResize(c, now):
		return fault{why: fmt.Sprintf("Container %s resize requires restart", c.Name), again: true}
	}
	return fault{}
}

// changed: the container was made by another definition than the pod has now.
func changed(c *corev1.Container, now *actual.Container) bool {
	return now.Hash != "" && now.Hash != spec.Hash(c)
}

// restarts: a container that has ended is started again.
func (p *planner) restarts(c *corev1.Container, ended *actual.Container) bool {
	return p.Killed[ended.ID] || Restarts(p.Pod, c, ended.ExitCode)
}

// mayRestart reports whether a container that is killed will come back.
func mayRestart(pod *corev1.Pod, c *corev1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy != corev1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever
}

func (p *planner) grace(own *int64) time.Duration {
	if own != nil {
		return time.Duration(*own) * time.Second
	}
	return time.Duration(spec.Grace(p.Pod)) * time.Second
}
