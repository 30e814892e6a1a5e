package settings

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// gateList is every feature gate that upstream's kubelet v1.37 knows, a line each: its
// name, its stage, on or off by default, "locked" where it can't be set otherwise, "node"
// where the kubelet itself looks at it, and which gates it needs. Facts of
// `kubelet --feature-gates`, the registered gates of k8s.io/kubernetes/pkg/features.
//
//go:embed gates.txt
var gateList string

// Gate is one of upstream's feature gates.
type Gate struct {
	Name string
	// Stage is ALPHA, BETA, DEPRECATED, or "" for what is settled, as metrics have it.
	Stage string
	// On says whether it is on, by default or here.
	On     bool
	locked bool
	node   bool
	needs  []string
}

// The names that stand for all gates of a stage.
const allAlpha, allBeta = "AllAlpha", "AllBeta"

// knownGates are all gates with their defaults, by name.
var knownGates = sync.OnceValue(func() map[string]Gate {
	known := map[string]Gate{}
	for line := range strings.Lines(gateList) {
		words := strings.Fields(line)
		g := Gate{Name: words[0], Stage: strings.TrimPrefix(words[1], "GA"), On: words[2] == "on"}
		for i, word := range words[3:] {
			switch word {
			case "locked":
				g.locked = true
			case "node":
				g.node = true
			case "needs":
				g.needs = words[3+i+1:]
			}
			if g.needs != nil {
				break
			}
		}
		known[g.Name] = g
	}
	return known
})

// switched are the gates that this agent goes by.
var switched = strings.Fields(`CPUManagerPolicyAlphaOptions CPUManagerPolicyBetaOptions ComponentFlagz ComponentStatusz
	ContainerCheckpoint ContainerRestartRules
	CustomCPUCFSQuotaPeriod DefaultPodSysctls ExtendWebSocketsToKubelet GracefulNodeShutdown GracefulNodeShutdownBasedOnPodPriority
	KubeletCrashLoopBackOffMax KubeletEnsureSecretPulledImages
	KubeletServiceAccountTokenForCredentialProviders MemoryQoS PodLevelResources PodsAPI ReduceDefaultCrashLoopBackOffDecay
	ReloadKubeletClientCAFile ReloadKubeletServerCertificateFile ResourceHealthStatus RestartAllContainersOnContainerExits
	TopologyManagerPolicyAlphaOptions TopologyManagerPolicyBetaOptions`)

// settled are gates of which this agent always has one side, and why.
var settled = map[string]struct {
	on  bool
	why string
}{
	"ContainerStopSignals":           {true, "a pod that says its stop signal gets it"},
	"EventedPLEG":                    {true, "the engine's events are listened to, always"},
	"PodAndContainerStatsFromCRI":    {true, "figures of pods are the engine's, always"},
	"PodLogsQuerySplitStreams":       {true, "a log can be asked for by stream, always"},
	"PodLevelResourceManagers":       {false, "pods with resources of their own have no CPUs and memory alone"},
	"RotateKubeletServerCertificate": {true, "the serving certificate is the cluster's, and renewed"},
	"WindowsGracefulNodeShutdown":    {false, "the node is Linux"},
}

// Gates are upstream's feature gates as a node has them. The zero value has all at
// their defaults.
type Gates struct{ set map[string]bool }

// ReadGates judges featureGates by upstream's rules: gates that are not known, that are
// locked to the other value, or that are on without those that they need, are errors.
func ReadGates(given map[string]bool) (Gates, error) {
	known, g := knownGates(), Gates{set: map[string]bool{}}
	var bad []error
	for _, name := range names(given) {
		gate, ok := known[name]
		switch {
		case !ok:
			return Gates{}, fmt.Errorf("unrecognized feature gate: %s", name)
		case gate.locked && gate.On != given[name]:
			bad = append(bad, fmt.Errorf("cannot set feature gate %s to %t, feature is locked to %t", name, given[name], gate.On))
		}
		g.set[name] = given[name]
	}
	for all, stage := range map[string]string{allAlpha: "ALPHA", allBeta: "BETA"} {
		value, is := given[all]
		for name, gate := range known {
			if _, named := given[name]; is && !named && gate.Stage == stage && !gate.locked {
				g.set[name] = value
			}
		}
	}
	if len(bad) > 0 {
		return Gates{}, errors.Join(bad...)
	}
	for _, name := range names(known) {
		if missing := g.missing(known[name]); len(missing) > 0 && g.said(name) {
			bad = append(bad, fmt.Errorf("%s is enabled, but depends on features that are disabled: %v", name, missing))
		}
	}
	return g, errors.Join(bad...)
}

// missing are the gates that one needs and that are off.
func (g Gates) missing(gate Gate) (off []string) {
	for _, need := range gate.needs {
		if !g.said(need) {
			off = append(off, need)
		}
	}
	return off
}

// said is a gate's value as configuration and defaults have it.
func (g Gates) said(name string) bool {
	if value, is := g.set[name]; is {
		return value
	}
	return knownGates()[name].On
}

// On says whether a gate is on: what this agent always does, or never, is that whatever
// was set.
func (g Gates) On(name string) bool {
	if s, is := settled[name]; is {
		return s.on
	}
	if slices.Contains(switched, name) {
		return g.said(name)
	}
	return knownGates()[name].On
}

// All are the gates as they are here, by name.
func (g Gates) All() []Gate {
	var out []Gate
	for _, name := range names(knownGates()) {
		gate := knownGates()[name]
		gate.On = g.On(name)
		out = append(out, gate)
	}
	return out
}

// futile tells of gates that were set to something else than what is done.
func futile(given map[string]bool) (warnings []string) {
	known := knownGates()
	for _, name := range names(given) {
		gate, value := known[name], given[name]
		s, always := settled[name]
		text := ""
		switch {
		case name == allAlpha || name == allBeta:
			if value != gate.On {
				text = "switches those gates alone that this agent goes by: " + strings.Join(ofStage(strings.ToUpper(strings.TrimPrefix(name, "All"))), ", ")
			}
		case value == gate.On || always && s.on == value:
		case always:
			text = "has no effect: " + s.why
		case slices.Contains(switched, name):
			if gate.Stage == "" || gate.Stage == "DEPRECATED" {
				text = "is about a gate that will be removed in a later version"
			}
		case gate.node:
			text = "has no effect: this agent doesn't switch it"
		default:
			text = "has no effect: it is none of the node's"
		}
		if text != "" {
			warnings = append(warnings, fmt.Sprintf("featureGates: %s=%t %s", name, value, text))
		}
	}
	return warnings
}

// ofStage are the gates of a stage that this agent goes by.
func ofStage(stage string) (out []string) {
	for _, name := range switched {
		if knownGates()[name].Stage == stage {
			out = append(out, name)
		}
	}
	return out
}

func names[V any](m map[string]V) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
