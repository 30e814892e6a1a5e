package agent

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/admit"
)

// declared are those of the features that nodes declare (KEP-5328) which are on; sorted.
func (cfg *Config) declared() []string {
	var list []string
	for _, name := range []string{
		"ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling",
		"InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits",
	} {
		if cfg.gates.On(name) {
			list = append(list, name)
		}
	}
	return list
}

// cpuOptions are options of the static CPU policy that are not settled, by the gate that
// they need.
var cpuOptions = map[string]struct{ gate, level string }{
	"align-by-socket":              {"CPUManagerPolicyAlphaOptions", "Alpha"},
	"distribute-cpus-across-cores": {"CPUManagerPolicyAlphaOptions", "Alpha"},
	"distribute-cpus-across-numa":  {"CPUManagerPolicyBetaOptions", "Beta"},
}

// allowed says whether gates allow the options of the CPU policy.
func (cfg *Config) allowed(options map[string]string) error {
	for name := range options {
		if needs, is := cpuOptions[name]; is && !cfg.gates.On(needs.gate) {
			return fmt.Errorf("CPU Manager Policy %s-level Options not enabled, but option %q provided: it needs the feature gate %s", needs.level, name, needs.gate)
		}
	}
	return nil
}

// Back-off where ReduceDefaultCrashLoopBackOffDecay is on (KEP-4603).
const (
	reducedLeast = time.Second
	reducedMost  = time.Minute
)

// backOff is the first and the longest delay of a container that crashes; zero is the
// usual one.
func (cfg *Config) backOff() (least, most time.Duration) {
	if cfg.gates.On("ReduceDefaultCrashLoopBackOffDecay") {
		least, most = reducedLeast, reducedMost
	}
	if set := cfg.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod; set != nil {
		most = set.Duration
	}
	return least, most
}

// without is a pod without what the configuration's gates switch off: rules of containers
// by which they restart (ContainerRestartRules, KEP-5307), and those that have all start
// over (RestartAllContainersOnContainerExits, KEP-5532). The pod itself is not changed.
func (cfg *Config) without(pod *corev1.Pod) *corev1.Pod {
	rules, all := cfg.gates.On("ContainerRestartRules"), cfg.gates.On("RestartAllContainersOnContainerExits")
	if pod == nil || rules && all {
		return pod
	}
	pod = pod.DeepCopy()
	strip := func(c *corev1.Container, main bool) {
		if !rules {
			c.RestartPolicyRules = nil
			if main || c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				c.RestartPolicy = nil
			}
			return
		}
		kept := c.RestartPolicyRules[:0]
		for _, r := range c.RestartPolicyRules {
			if r.Action != corev1.ContainerRestartRuleActionRestartAllContainers {
				kept = append(kept, r)
			}
		}
		c.RestartPolicyRules = kept
	}
	for i := range pod.Spec.InitContainers {
		strip(&pod.Spec.InitContainers[i], false)
	}
	for i := range pod.Spec.Containers {
		strip(&pod.Spec.Containers[i], true)
	}
	return pod
}

// refuseWhole keeps pods off that have resources as a whole, where that is switched off.
func (a *Agent) refuseWhole(pod *corev1.Pod) *admit.Refusal {
	if a.cfg.gates.On("PodLevelResources") || !resource.IsPodLevelResourcesSet(pod) {
		return nil
	}
	return admit.Refuse("PodLevelResourcesNotSupported", "PodLevelResources feature gate is disabled")
}
