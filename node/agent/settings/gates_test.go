package settings

import (
	"slices"
	"strings"
	"testing"
)

// TestGates: what is said of gates that are set, and which are on then.
func TestGates(t *testing.T) {
	cases := []struct{ text, on, off, warning, refusal string }{
		{"{}", "ContainerCheckpoint NodeLogQuery EventedPLEG", "DefaultPodSysctls QOSReserved", "", ""},
		{"{NoSuchGate: true}", "", "", "", "unrecognized feature gate: NoSuchGate"},
		{"{NodeLogQuery: false}", "", "", "", "cannot set feature gate NodeLogQuery to false, feature is locked to true"},
		{"{NodeLogQuery: true, ContainerCheckpoint: true}", "NodeLogQuery ContainerCheckpoint", "", "", ""},
		{"{ContainerCheckpoint: false}", "", "ContainerCheckpoint", "", ""},
		{"{DefaultPodSysctls: true}", "DefaultPodSysctls", "", "", ""},
		{"{GracefulNodeShutdown: false}", "", "", "", "GracefulNodeShutdownBasedOnPodPriority is enabled, but depends on features that are disabled: [GracefulNodeShutdown]"},
		{"{GracefulNodeShutdown: false, GracefulNodeShutdownBasedOnPodPriority: false, WindowsGracefulNodeShutdown: false}", "", "GracefulNodeShutdown GracefulNodeShutdownBasedOnPodPriority", "", ""},
		{"{EventedPLEG: false, PodAndContainerStatsFromCRI: true}", "EventedPLEG", "", "", ""},
		{"{RotateKubeletServerCertificate: false}", "RotateKubeletServerCertificate", "", "featureGates: RotateKubeletServerCertificate=false has no effect: the serving certificate is the cluster's", ""},
		{"{HPAScaleToZero: false}", "HPAScaleToZero", "", "HPAScaleToZero=false has no effect: it is none of the node's", ""},
		{"{HugepageAwareEviction: false}", "HugepageAwareEviction", "", "HugepageAwareEviction=false has no effect: this agent doesn't switch it", ""},
		{"{CustomCPUCFSQuotaPeriod: false}", "", "CustomCPUCFSQuotaPeriod", "will be removed in a later version", ""},
		{"{AllAlpha: true, StorageVersionAPI: false, CompositePodGroup: false, PodGroupPreemptionPolicy: false, TopologyAwareWorkloadScheduling: false, WorkloadWithJob: false}",
			"DefaultPodSysctls ReduceDefaultCrashLoopBackOffDecay", "QOSReserved", "AllAlpha=true switches those gates alone that this agent goes by: CPUManagerPolicyAlphaOptions, DefaultPodSysctls", ""},
		{"{AllAlpha: true}", "", "", "", "is enabled, but depends on features that are disabled: [GenericWorkload]"},
	}
	for _, c := range cases {
		got, err := load(t, "featureGates: "+c.text+"\n", nil)
		if (err != nil) != (c.refusal != "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%s: error %v, want %q", c.text, err, c.refusal)
		}
		if all := strings.Join(got.Warnings, "\n"); (all != "") != (c.warning != "") || !strings.Contains(all, c.warning) {
			t.Errorf("%s: warnings %q, want %q", c.text, all, c.warning)
		}
		if err != nil {
			continue
		}
		g, err := ReadGates(got.Kubelet.FeatureGates)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(c.on + " " + c.off) {
			if want := slices.Contains(strings.Fields(c.on), name); g.On(name) != want {
				t.Errorf("%s: %s is on: %t", c.text, name, g.On(name))
			}
		}
	}
}

// TestGateNames: what acts and what is settled are gates that there are, in one list, and
// none that can't be set otherwise.
func TestGateNames(t *testing.T) {
	known := knownGates()
	if len(known) != 252 {
		t.Errorf("%d gates, upstream's kubelet v1.37 knows 252", len(known))
	}
	for _, name := range switched {
		if g, is := known[name]; !is || g.locked || !g.node {
			t.Errorf("%s is switched: %+v", name, g)
		}
		if _, is := settled[name]; is {
			t.Errorf("%s is in two lists", name)
		}
	}
	for name := range settled {
		if _, is := known[name]; !is {
			t.Errorf("no gate %s", name)
		}
	}
	for name, g := range known {
		if !slices.Contains([]string{"ALPHA", "BETA", "DEPRECATED", ""}, g.Stage) {
			t.Errorf("%s is of stage %q", name, g.Stage)
		}
		for _, need := range g.needs {
			if _, is := known[need]; !is {
				t.Errorf("%s needs %s, which is no gate", name, need)
			}
		}
	}
}

// TestGatedFields: fields that need a gate.
func TestGatedFields(t *testing.T) {
	cases := []struct{ text, refusal string }{
		{"cpuCFSQuotaPeriod: 50ms\n", ""},
		{"cpuCFSQuotaPeriod: 50ms\nfeatureGates: {CustomCPUCFSQuotaPeriod: false}\n", "cpuCFSQuotaPeriod needs the feature gate CustomCPUCFSQuotaPeriod"},
		{"featureGates: {KubeletCrashLoopBackOffMax: false}\n", ""},
		{"crashLoopBackOff: {maxContainerRestartPeriod: 10s}\nfeatureGates: {KubeletCrashLoopBackOffMax: false}\n", "needs the feature gate KubeletCrashLoopBackOffMax"},
		{"featureGates: {KubeletEnsureSecretPulledImages: false}\n", ""},
		{"imagePullCredentialsVerificationPolicy: NeverVerify\nfeatureGates: {KubeletEnsureSecretPulledImages: false}\n", "needs the feature gate KubeletEnsureSecretPulledImages"},
		{"memoryThrottlingFactor: 0.9\nfeatureGates: {MemoryQoS: false}\n", ""},
		{"memoryThrottlingFactor: 0.8\nfeatureGates: {MemoryQoS: false}\n", "needs the feature gate MemoryQoS"},
		{"memoryReservationPolicy: TieredReservation\nfeatureGates: {MemoryQoS: false}\n", "needs the feature gate MemoryQoS"},
		{"shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 3}]\nfeatureGates: {GracefulNodeShutdownBasedOnPodPriority: false}\n", "needs the feature gate GracefulNodeShutdownBasedOnPodPriority"},
		{"defaultPodSysctls: {net.ipv4.tcp_syncookies: '0'}\n", "defaultPodSysctls needs the feature gate DefaultPodSysctls"},
		{"defaultPodSysctls: {net.ipv4.tcp_syncookies: '0'}\nfeatureGates: {DefaultPodSysctls: true}\n", ""},
		{"defaultPodSysctls: {vm.swappiness: '0'}\nfeatureGates: {DefaultPodSysctls: true}\n", `"vm.swappiness" is not known to be namespaced`},
		{"defaultPodSysctls: {Net.x: '0'}\nfeatureGates: {DefaultPodSysctls: true}\n", `"Net.x" is not a valid sysctl name`},
		{"defaultPodSysctls: {net.ipv4.a: '0', net/ipv4/a: '1'}\nfeatureGates: {DefaultPodSysctls: true}\n", `duplicate sysctl "net.ipv4.a"`},
		{"enableSystemLogQuery: true\n", ""},
		{"enableSystemLogQuery: true\nenableSystemLogHandler: false\n", "enableSystemLogHandler is required for enableSystemLogQuery"},
	}
	for _, c := range cases {
		_, err := load(t, c.text, nil)
		if (err != nil) != (c.refusal != "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.refusal)
		}
	}
}
