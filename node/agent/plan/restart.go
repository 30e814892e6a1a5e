package plan

import (
	"iter"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// How long a container that keeps ending is held back: upstream's numbers.
const (
	// CrashMin is the delay before the second restart; the first is at once.
	CrashMin = 10 * time.Second
	// CrashMax is the longest delay.
	CrashMax = 5 * time.Minute
	// CrashForget: a container that has run this long starts afresh.
	CrashForget = 2 * CrashMax
	// resetFloor is the least time from the start of a container, by whose end all
	// containers start over, to their beginning. Upstream, which looks at a pod once a
	// second, has it by itself.
	resetFloor = time.Second
	// minGrace is what a container always gets between TERM and KILL.
	minGrace = 2 * time.Second
)

// Crash is a container's history of restarts. The zero value is a container
// that has never been restarted.
type Crash struct {
	// Delay follows the container's last end.
	Delay time.Duration
	// Last is when the container was last restarted.
	Last time.Time
	// Least is the first delay; zero means CrashMin. Most bounds the delay; zero means
	// CrashMax.
	Least, Most time.Duration
}

func (c Crash) least() time.Duration {
	if c.Least == 0 {
		return CrashMin
	}
	return c.Least
}

func (c Crash) most() time.Duration {
	if c.Most == 0 {
		return CrashMax
	}
	return c.Most
}

// Until is when a container that ended at finished may start again.
func (c Crash) Until(finished time.Time) time.Time {
	if c.Delay == 0 || finished.Sub(c.Last) > CrashForget {
		return finished
	}
	return finished.Add(c.Delay)
}

// Restarted is the history after a restart at now of a container that ended at
// finished.
func (c Crash) Restarted(now, finished time.Time) Crash {
	if c.Delay == 0 || finished.Sub(c.Last) > CrashForget {
		return Crash{Delay: min(c.least(), c.most()), Last: now, Least: c.Least, Most: c.Most}
	}
	return Crash{Delay: min(2*c.Delay, c.most()), Last: now, Least: c.Least, Most: c.Most}
}

// Since is the end from which the delay before the next start of that container
// counts; zero when nothing holds it. It is the end of the last one. As upstream has
// it, one that was killed while it ran (a probe failed, or its definition changed)
// is followed at once, and then what counts is the end of the one
// before it; only where that was too short a time ago does its own count after all.
func (c Crash) Since(now *actual.Pod, name string, killed Killed) time.Time {
	last := now.Latest(name)
	if last == nil || last.State != actual.Exited {
		return time.Time{}
	}
	if !killed.Has(last.ID) {
		return last.Finished
	}
	before := now.EndedBefore(last)
	if before == nil {
		return time.Time{}
	}
	if last.Finished.Before(c.Until(before.Finished)) {
		return last.Finished
	}
	return before.Finished
}

// Restarts reports whether a container that ended with that code is started
// again: by its own rules, else its own policy, else the pod's.
func Restarts(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	switch rule(c, code) {
	case corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers:
		return true
	}
	switch policy(pod, c) {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// policy is a container's own restart policy, else its pod's.
func policy(pod *corev1.Pod, c *corev1.Container) corev1.RestartPolicy {
	if c.RestartPolicy != nil {
		return corev1.RestartPolicy(*c.RestartPolicy)
	}
	return pod.Spec.RestartPolicy
}

// rule is the action of the first of a container's rules that is about that code, ""
// for none.
func rule(c *corev1.Container, code int32) corev1.ContainerRestartRuleAction {
	for _, r := range c.RestartPolicyRules {
		if matches(r.ExitCodes, code) {
			return r.Action
		}
	}
	return ""
}

// RestartsAll reports whether all of the pod's containers start over when this one
// ends with that code (KEP-5532).
func RestartsAll(c *corev1.Container, code int32) bool {
	return rule(c, code) == corev1.ContainerRestartRuleActionRestartAllContainers
}

// MayRestartAll reports whether some end of some container makes all start over.
func MayRestartAll(pod *corev1.Pod) bool {
	for c := range mains(pod) {
		for _, r := range c.RestartPolicyRules {
			if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
				return true
			}
		}
	}
	return false
}

// Resetting reports whether all containers are on their way out because of one that
// ended so: it is there until the last of the others is gone.
func Resetting(pod *corev1.Pod, now *actual.Pod) bool {
	for i := range now.Containers {
		if c := &now.Containers[i]; source(pod, c) {
			return true
		}
	}
	return false
}

// source is a container that ended in such a way.
func source(pod *corev1.Pod, now *actual.Container) bool {
	if now.State != actual.Exited {
		return false
	}
	for c := range mains(pod) {
		if c.Name == now.Name {
			return RestartsAll(c, now.ExitCode)
		}
	}
	return false
}

// mains are the containers of a pod but the ephemeral ones.
func mains(pod *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// reset starts the pod over in its sandbox and with its volumes: whatever runs is
// killed without grace, then all containers are removed, those that asked for it
// last, and not before their time. What comes after is a pod that has not begun, and
// of which nothing holds a container back.
func (p *planner) reset() bool {
	if !MayRestartAll(p.Pod) || !Resetting(p.Pod, p.Actual) {
		return false
	}
	var live, others, sources []*actual.Container
	for i := range p.Actual.Containers {
		c := &p.Actual.Containers[i]
		switch {
		case !p.isMain(c.Name):
		case running(c):
			live = append(live, c)
		case source(p.Pod, c):
			sources = append(sources, c)
		default:
			others = append(others, c)
		}
	}
	for _, c := range live {
		p.kill(c, fault{why: "killing"}, minGrace)
	}
	if len(live) > 0 || p.starting() {
		return true
	}
	for _, c := range others {
		p.add(Step{Kind: RemoveContainer, Container: c.Name, ID: c.ID})
	}
	if len(others) == 0 {
		p.removeSources(sources)
	}
	return true
}

func (p *planner) removeSources(sources []*actual.Container) {
	for _, c := range sources {
		if until := c.Started.Add(resetFloor); p.Now.Before(until) {
			p.at(until)
			continue
		}
		p.add(Step{Kind: RemoveContainer, Container: c.Name, ID: c.ID})
	}
}

// starting: a container is being made, which must be seen before it can go too.
func (p *planner) starting() bool {
	for c := range mains(p.Pod) {
		if p.Busy[Step{Kind: StartContainer, Container: c.Name}.Key()] {
			return true
		}
	}
	return false
}

func (p *planner) isMain(name string) bool {
	for c := range mains(p.Pod) {
		if c.Name == name {
			return true
		}
	}
	return false
}

func matches(codes *corev1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if codes == nil {
		return false
	}
	in := slices.Contains(codes.Values, code)
	return in == (codes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}
