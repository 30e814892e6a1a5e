package plan

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How long a container that keeps ending is held back: upstream's numbers.
const (
	// CrashMin is the delay before the second restart; the first is at once.
	CrashMin = 10 * time.Second
	// CrashMax is the longest delay.
	CrashMax = 5 * time.Minute
	// CrashForget: a container that has run this long starts afresh.
	CrashForget = 2 * CrashMax
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
	// Most bounds the delay; zero means CrashMax.
	Most time.Duration
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
		return Crash{Delay: min(CrashMin, c.most()), Last: now, Most: c.Most}
	}
	return Crash{Delay: min(2*c.Delay, c.most()), Last: now, Most: c.Most}
}

// Restarts reports whether a container that ended with that code is started
// again: by its own rules, else its own policy, else the pod's.
func Restarts(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	for _, rule := range c.RestartPolicyRules {
		if rule.Action == corev1.ContainerRestartRuleActionRestart && matches(rule.ExitCodes, code) {
			return true
		}
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

func matches(codes *corev1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if codes == nil {
		return false
	}
	in := slices.Contains(codes.Values, code)
	return in == (codes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}

// mayRestart reports whether a container that is killed will come back.
func mayRestart(pod *corev1.Pod, c *corev1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy != corev1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever
}
