package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/node/agent/settings"
)

func gatedConfig(t *testing.T, gates map[string]bool) *Config {
	t.Helper()
	k := settings.Complete(settings.Kubelet{FeatureGates: gates})
	g, err := settings.ReadGates(gates)
	if err != nil {
		t.Fatal(err)
	}
	return &Config{Kubelet: &k, gates: g}
}

// TestGatesOfNodes: what gates do to back-off and to what the node declares.
func TestGatesOfNodes(t *testing.T) {
	const all = "[ExtendWebSocketsToKubelet InPlacePodLevelResourcesVerticalScaling InPlacePodVerticalScalingInitContainers RestartAllContainersOnContainerExits]"
	for _, c := range []struct {
		gates       map[string]bool
		least, most time.Duration
		declared    string
	}{
		{nil, 0, 5 * time.Minute, all},
		{map[string]bool{"ReduceDefaultCrashLoopBackOffDecay": true}, time.Second, 5 * time.Minute, all},
		{map[string]bool{"ReduceDefaultCrashLoopBackOffDecay": true, "KubeletCrashLoopBackOffMax": false}, time.Second, time.Minute, all},
		{map[string]bool{"KubeletCrashLoopBackOffMax": false}, 0, 0, all},
		{map[string]bool{"ExtendWebSocketsToKubelet": false, "RestartAllContainersOnContainerExits": false}, 0, 5 * time.Minute, "[InPlacePodLevelResourcesVerticalScaling InPlacePodVerticalScalingInitContainers]"},
	} {
		cfg := gatedConfig(t, c.gates)
		least, most := cfg.backOff()
		if got := fmt.Sprint(cfg.declared()); least != c.least || most != c.most || got != c.declared {
			t.Errorf("%v: back-off %v to %v, declared %v", c.gates, least, most, got)
		}
	}
}

// TestCPUOptions: options that are not settled need their gates.
func TestCPUOptions(t *testing.T) {
	for _, c := range []struct {
		option  string
		gates   map[string]bool
		refused bool
	}{
		{"full-pcpus-only", nil, false},
		{"align-by-socket", nil, true},
		{"align-by-socket", map[string]bool{"CPUManagerPolicyAlphaOptions": true}, false},
		{"distribute-cpus-across-numa", nil, false},
		{"distribute-cpus-across-numa", map[string]bool{"CPUManagerPolicyBetaOptions": false}, true},
	} {
		err := gatedConfig(t, c.gates).allowed(map[string]string{c.option: "true"})
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), c.option) {
			t.Errorf("%s with %v: %v", c.option, c.gates, err)
		}
	}
}

// TestRulesAreLeftOut: restart rules of containers that gates switch off.
func TestRulesAreLeftOut(t *testing.T) {
	rule := func(a corev1.ContainerRestartRuleAction) corev1.ContainerRestartRule {
		return corev1.ContainerRestartRule{Action: a}
	}
	rules := []corev1.ContainerRestartRule{rule(corev1.ContainerRestartRuleActionRestart), rule(corev1.ContainerRestartRuleActionRestartAllContainers)}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "side", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}, {Name: "init", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyNever)}},
		Containers:     []corev1.Container{{Name: "main", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyNever), RestartPolicyRules: rules}},
	}}
	show := func(p *corev1.Pod) (out []string) {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			out = append(out, fmt.Sprintf("%s:%s:%d", c.Name, ptr.Deref(c.RestartPolicy, ""), len(c.RestartPolicyRules)))
		}
		return out
	}
	whole := fmt.Sprint(show(pod))
	for _, c := range []struct {
		off  []string
		want string
	}{
		{nil, "[side:Always:0 init:Never:0 main:Never:2]"},
		{[]string{"RestartAllContainersOnContainerExits"}, "[side:Always:0 init:Never:0 main:Never:1]"},
		{[]string{"RestartAllContainersOnContainerExits", "ContainerRestartRules"}, "[side:Always:0 init::0 main::0]"},
	} {
		gates := map[string]bool{}
		for _, name := range c.off {
			gates[name] = false
		}
		if got := fmt.Sprint(show(gatedConfig(t, gates).without(pod))); got != c.want {
			t.Errorf("without %v: %s, want %s", c.off, got, c.want)
		}
	}
	if fmt.Sprint(show(pod)) != whole {
		t.Error("the pod itself was changed")
	}
}

// TestWholeResources: where pods can't have resources as a whole, those that do are refused.
func TestWholeResources(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Resources: &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: quantity("1")}}}}
	off := map[string]bool{"PodLevelResources": false, "PodLevelResourcesFixDefaulting": false, "PodLevelResourcesFixKubeletQOSClass": false, "InPlacePodLevelResourcesVerticalScaling": false}
	for want, gates := range map[string]map[string]bool{"": nil, "PodLevelResourcesNotSupported": off} {
		a := &Agent{cfg: *gatedConfig(t, gates)}
		r := a.refuseWhole(pod)
		if r == nil && want != "" || r != nil && r.Reason != want || a.refuseWhole(&corev1.Pod{}) != nil {
			t.Errorf("%v: %+v", gates, r)
		}
	}
}
