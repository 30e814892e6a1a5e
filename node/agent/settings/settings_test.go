package settings

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func load(t *testing.T, file string, dropIns map[string]string) (Loaded, error) {
	t.Helper()
	dir := t.TempDir()
	path, drop := filepath.Join(dir, "kubelet.yaml"), filepath.Join(dir, "conf.d")
	if err := os.WriteFile(path, []byte(head+file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(drop, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range dropIns {
		if err := os.WriteFile(filepath.Join(drop, name), []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(path, drop)
}

// TestDropIns: later files win, objects are merged, lists are replaced, and
// only *.conf counts.
func TestDropIns(t *testing.T) {
	got, err := load(t, "maxPods: 10\nclusterDNS: [10.0.0.1]\nsystemReserved: {cpu: 100m, memory: 1Gi}\n", map[string]string{
		"10-a.conf": "maxPods: 20\nsystemReserved: {cpu: 200m}\n", "20-b.conf": "maxPods: 30\nclusterDNS: [10.0.0.2, 10.0.0.3]\n", "30-c.txt": "maxPods: 40\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	k := got.Kubelet
	if k.MaxPods != 30 || !reflect.DeepEqual(k.ClusterDNS, []string{"10.0.0.2", "10.0.0.3"}) ||
		!reflect.DeepEqual(k.SystemReserved, map[string]string{"cpu": "200m", "memory": "1Gi"}) {
		t.Errorf("merged to maxPods=%d clusterDNS=%v systemReserved=%v", k.MaxPods, k.ClusterDNS, k.SystemReserved)
	}
	full := Complete(k)
	if *full.PodPidsLimit != podPids || full.NodeStatusUpdateFrequency.Duration != 10*time.Second || full.EvictionHard["memory.available"] != "100Mi" {
		t.Errorf("defaults are missing: %+v", full)
	}
}

// TestJudgement: what can't be honoured is named.
func TestJudgement(t *testing.T) {
	cases := []struct{ text, warning, refusal string }{
		{"maxPods: 5\n", "", ""},
		{"nosuchField: 1\n", "", `unknown field "nosuchField"`},
		{"maxPods: 1\nmaxPods: 2\n", "", "already set"},
		{"hairpinMode: promiscuous-bridge\n", "hairpinMode has no effect", ""},
		{"readOnlyPort: 10255\n", "", "readOnlyPort: nothing is served"},
		{"readOnlyPort: 0\n", "", ""},
		{"cgroupDriver: systemd\n", "", "cgroupDriver: the engine makes cgroups itself"},
		{"cgroupDriver: cgroupfs\n", "", ""},
		{"enforceNodeAllocatable: [pods, kube-reserved]\n", "", `option "kube-reserved"`},
		{"imageGCHighThresholdPercent: 50\n", "", "imageGCLowThresholdPercent 80 must be less than imageGCHighThresholdPercent 50"},
		{"topologyManagerPolicy: sometimes\n", "", "must be one of"},
		{"evictionSoft: {memory.available: 1Gi}\n", "", "grace period must be specified for the soft eviction threshold memory.available"},
		{"shutdownGracePeriod: 10s\nshutdownGracePeriodCriticalPods: 20s\n", "", "shutdownGracePeriodCriticalPods 20s must be <= shutdownGracePeriod 10s"},
		{"kubeReserved: {gpu: 1}\n", "", `cannot reserve "gpu" resource`},
		{"imagePullCredentialsVerificationPolicy: AlwaysVerify\n", "", ""},
		{"imagePullCredentialsVerificationPolicy: Sometimes\n", "", `option "Sometimes" specified for imagePullCredentialsVerificationPolicy`},
		{"preloadedImagesVerificationAllowlist: [a.example/*]\n", "", "can't set `preloadedImagesVerificationAllowlist`"},
		{"imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\npreloadedImagesVerificationAllowlist: [a.example/*, b.example/c]\n", "", ""},
		{"imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\npreloadedImagesVerificationAllowlist: ['b.example/c:1']\n", "", "neither tag nor digest is accepted"},
		{"memoryThrottlingFactor: 0.8\nmemoryReservationPolicy: TieredReservation\n", "", ""},
		{"memoryThrottlingFactor: 1.5\n", "", "memoryThrottlingFactor 1.5 must be greater than 0 and less than or equal to 1.0"},
		{"memoryReservationPolicy: Some\n", "", `option "Some" specified for memoryReservationPolicy. Valid options are "None" or "TieredReservation"`},
		{"registerWithTaints: [{key: a, effect: Sometimes}]\n", "", "invalid taint"},
	}
	for _, c := range cases {
		got, err := load(t, c.text, nil)
		if (err != nil) != (c.refusal != "") || (err != nil && !strings.Contains(err.Error(), c.refusal)) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.refusal)
		}
		if all := strings.Join(got.Warnings, "\n"); (all != "") != (c.warning != "") || !strings.Contains(all, c.warning) {
			t.Errorf("%q: warnings %q, want %q", c.text, all, c.warning)
		}
	}
}

// acts are the fields that the agent goes by: whoever adds one here has it done
// somewhere.
var acts = strings.Fields(`kind apiVersion enableServer staticPodPath podLogsDir fileCheckFrequency address port authentication authorization
	imagePullCredentialsVerificationPolicy preloadedImagesVerificationAllowlist enableDebuggingHandlers enableProfilingHandler
	enableSystemLogHandler healthzPort healthzBindAddress clusterDomain clusterDNS nodeStatusUpdateFrequency nodeStatusReportFrequency
	nodeLeaseDurationSeconds imageMinimumGCAge imageMaximumGCAge imageGCHighThresholdPercent imageGCLowThresholdPercent
	cpuManagerPolicy cpuManagerPolicyOptions singleProcessOOMKill memoryManagerPolicy topologyManagerPolicy topologyManagerScope
	topologyManagerPolicyOptions maxPods podPidsLimit resolvConf cpuCFSQuota cpuCFSQuotaPeriod nodeStatusMaxImages
	serializeImagePulls maxParallelImagePulls evictionHard evictionSoft evictionSoftGracePeriod evictionPressureTransitionPeriod
	evictionMaxPodGracePeriod evictionMinimumReclaim mergeDefaultEvictionSettings podsPerCore failSwapOn memorySwap
	containerLogMaxSize containerLogMaxFiles systemReserved kubeReserved reservedSystemCPUs enforceNodeAllocatable
	memoryThrottlingFactor memoryReservationPolicy allowedUnsafeSysctls providerID shutdownGracePeriod shutdownGracePeriodCriticalPods shutdownGracePeriodByPodPriority
	crashLoopBackOff reservedMemory seccompDefault registerWithTaints localStorageCapacityIsolation userNamespaces
	tlsMinVersion tlsCipherSuites tlsCurvePreferences tlsCertFile tlsPrivateKeyFile featureGates defaultPodSysctls enableSystemLogQuery`)

// TestEveryField: each of upstream's fields acts, has no effect and says so, or may
// have one value alone.
func TestEveryField(t *testing.T) {
	places := map[string]int{}
	for _, name := range acts {
		places[name]++
	}
	for name := range ignored {
		places[name]++
	}
	for name := range fixed {
		places[name]++
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Kubelet]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && places[name] != 1 {
			t.Errorf("field %q is in %d lists", name, places[name])
		}
		delete(places, name)
	}
	for name := range places {
		t.Errorf("no field %q", name)
	}
}

// TestEffective: what has no effect isn't shown as if it had.
func TestEffective(t *testing.T) {
	got, err := load(t, "hairpinMode: none\nkubeAPIQPS: 7\noomScoreAdj: 5\nfailCgroupV1: true\nmaxPods: 9\nfeatureGates: {KubeletPSI: true, MemoryQoS: false, EventedPLEG: false}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	k := Complete(got.Kubelet)
	e := Effective(k)
	if e.HairpinMode != "hairpin-veth" || e.KubeAPIQPS != nil || e.OOMScoreAdj != nil || *e.FailCgroupV1 || e.MaxPods != 9 || !reflect.DeepEqual(e.FeatureGates, map[string]bool{"KubeletPSI": true, "MemoryQoS": false}) {
		t.Errorf("shown: %+v", e)
	}
	if e.MemorySwap.SwapBehavior != "NoSwap" || *e.UserNamespaces.IDsPerPod != 65536 || !*e.EnableSystemLogHandler || !e.RotateCertificates {
		t.Errorf("not shown: %+v", e)
	}
	if k.HairpinMode != "none" || k.KubeAPIQPS == nil {
		t.Error("the configuration itself was changed")
	}
}
