package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
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
		{"nosuchField: 1\n", `unknown field "nosuchField"`, ""}, // and goes on, as upstream
		{"maxPods: 1\nmaxPods: 2\n", "already set", ""},
		{"maxPods: many\n", "", "cannot unmarshal string into Go struct field KubeletConfiguration.maxPods"},
		{"rotateCertificates: true\nserverTLSBootstrap: true\nruntimeRequestTimeout: 0s\ncpuManagerReconcilePeriod: 0s\nmemorySwap: {}\nlogging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}}, verbosity: 0}\n", "", ""},
		{"rotateCertificates: false\n", "rotateCertificates has no effect: certificates are always renewed", ""},
		{"hairpinMode: promiscuous-bridge\n", "hairpinMode has no effect", ""},
		{"readOnlyPort: 10255\n", "readOnlyPort 10255 shows the node's pods and figures to everybody", ""},
		{"readOnlyPort: 70000\n", "", "readOnlyPort 70000 must be between 0 and 65535"},
		{"oomScoreAdj: -1001\n", "", "oomScoreAdj -1001 must be between -1000 and 1000"},
		{"kubeAPIQPS: -1\n", "", "kubeAPIQPS -1 must not be a negative number"},
		{"registryBurst: -1\n", "", "registryBurst -1 must not be a negative number"},
		{"containerLogMaxWorkers: 0\n", "", "containerLogMaxWorkers must be greater than or equal to 1"},
		{"containerLogMonitorInterval: 1s\n", "", "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"},
		{"iptablesDropBit: 32\n", "", "iptablesDropBit 32 must be between 0 and 31"},
		{"systemCgroups: /system\n", "", "systemCgroups was specified and cgroupRoot was not specified"},
		{"hairpinMode: sideways\n", "", `option "sideways" specified for hairpinMode`},
		{"logging: {format: json, verbosity: 4}\n", "", ""},
		{"logging: {format: xml}\n", "", `logging.format: Invalid value: "xml": Unsupported log format`},
		{"logging: {flushFrequency: 5s, vmodule: [{filePattern: a, verbosity: 2}]}\n", "logging: format and verbosity alone have an effect", ""},
		{"qosReserved: {memory: 50%}\n", "", "qosReserved needs the feature gate QOSReserved"},
		{"imageServiceEndpoint: unix:///run/images.sock\n", "imageServiceEndpoint has no effect", ""},
		{"readOnlyPort: 0\n", "", ""},
		{"cgroupDriver: systemd\n", "cgroupDriver systemd has no effect", ""},
		{"cgroupDriver: none\n", "", "cgroupDriver \"none\" must be one of"},
		{"cgroupDriver: cgroupfs\n", "", ""},
		{"enforceNodeAllocatable: [pods, kube-reserved]\n", "", `kubeReservedCgroup must be specified when "kube-reserved" is in enforceNodeAllocatable`},
		{"enforceNodeAllocatable: [pods, kube-reserved]\nkubeReservedCgroup: /kube\n", "", ""},
		{"enforceNodeAllocatable: [kube-reserved, kube-reserved-compressible]\nkubeReservedCgroup: /kube\n", "", `both "kube-reserved" and "kube-reserved-compressible"`},
		{"enforceNodeAllocatable: [cpu]\n", "", `option "cpu" specified for enforceNodeAllocatable`},
		{"systemReservedCgroup: /system\nreservedSystemCPUs: 0-1\n", "", "can't use reservedSystemCPUs with systemReservedCgroup"},
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

// TestTunesKernel: only a protectKernelDefaults that says false, in the last file that says
// anything of it, asks for the kernel to be changed.
func TestTunesKernel(t *testing.T) {
	for _, c := range []struct {
		text string
		over map[string]string
		want bool
	}{
		{"", nil, false},
		{"protectKernelDefaults: true\n", nil, false},
		{"protectKernelDefaults: false\n", nil, true},
		{"protectKernelDefaults: false\n", map[string]string{"a.conf": "protectKernelDefaults: true\n"}, false},
		{"protectKernelDefaults: true\n", map[string]string{"a.conf": "protectKernelDefaults: false\n"}, true},
		{"protectKernelDefaults: false\n", map[string]string{"a.conf": "protectKernelDefaults: null\n"}, false},
	} {
		got, err := load(t, c.text, c.over)
		if err != nil || got.TunesKernel != c.want {
			t.Errorf("%q, %v: %v, %v, want %v", c.text, c.over, got.TunesKernel, err, c.want)
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
	tlsMinVersion tlsCipherSuites tlsCurvePreferences tlsCertFile tlsPrivateKeyFile featureGates defaultPodSysctls enableSystemLogQuery
	registryPullQPS registryBurst eventRecordQPS eventBurst kubeAPIQPS kubeAPIBurst enableContentionProfiling volumeStatsAggPeriod podCIDR maxOpenFiles oomScoreAdj failCgroupV1 qosReserved syncFrequency readOnlyPort cgroupDriver registerNode protectKernelDefaults systemReservedCgroup kubeReservedCgroup logging containerRuntimeEndpoint staticPodURL staticPodURLHeader httpCheckFrequency`)

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

// TestEffective: what acts is shown as it does, and what has no effect as it was given.
func TestEffective(t *testing.T) {
	got, err := load(t, "hairpinMode: none\nkubeAPIQPS: 7\noomScoreAdj: 5\nfailCgroupV1: true\ncgroupDriver: systemd\nmaxPods: 9\nfeatureGates: {KubeletPSI: true, MemoryQoS: false, EventedPLEG: false}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	k := Complete(got.Kubelet)
	e := Effective(k)
	if e.HairpinMode != "none" || *e.KubeAPIQPS != 7 || e.KubeAPIBurst != 100 || *e.OOMScoreAdj != 5 || !*e.FailCgroupV1 || e.CgroupDriver != "cgroupfs" || *e.EventRecordQPS != 0 || e.MaxPods != 9 || !reflect.DeepEqual(e.FeatureGates, map[string]bool{"KubeletPSI": true, "MemoryQoS": false, "EventedPLEG": false}) {
		t.Errorf("shown: %+v", e)
	}
	if e.MemorySwap.SwapBehavior != "NoSwap" || *e.UserNamespaces.IDsPerPod != 65536 || !*e.EnableSystemLogHandler || !e.RotateCertificates {
		t.Errorf("not shown: %+v", e)
	}
	if k.HairpinMode != "none" || k.KubeAPIQPS == nil {
		t.Error("the configuration itself was changed")
	}
}

// TestShownMayBeGivenBack: whoever edits what /configz shows gets a configuration that
// nothing is said of, and that is the same. Every field without effect has upstream's
// default, for programs that know no field that is left out.
func TestShownMayBeGivenBack(t *testing.T) {
	raw, err := yaml.Marshal(Effective(Complete(Kubelet{})))
	if err != nil {
		t.Fatal(err)
	}
	var body []string
	for line := range strings.Lines(string(raw)) {
		if !strings.Contains(head, line) {
			body = append(body, line)
		}
	}
	got, err := load(t, strings.Join(body, ""), nil)
	if err != nil || len(got.Warnings) > 0 {
		t.Errorf("given back: %v, %q", err, got.Warnings)
	}
	if again, err := yaml.Marshal(Effective(Complete(got.Kubelet))); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("%v, shown at first\n%s\nand then\n%s", err, raw, again)
	}
	var shown map[string]any
	if err := yaml.Unmarshal(raw, &shown); err != nil {
		t.Fatal(err)
	}
	empty := strings.Fields("serverTLSBootstrap cgroupRoot kubeletCgroups systemCgroups showHiddenMetricsForVersion kernelMemcgNotification tracing imageServiceEndpoint")
	for name := range ignored {
		if v, is := shown[name]; !slices.Contains(empty, name) && (!is || v == "0s") {
			t.Errorf("%s is shown as %v", name, v)
		}
	}
}

// TestReading: what is said of files that are not right, and whose paths are whose.
func TestReading(t *testing.T) {
	got, err := load(t, "staticPodPath: manifests\nresolvConf: /etc/resolv.conf\n", map[string]string{"a.conf": "authentication: {x509: {clientCAFile: ca.crt}}\n", "b.yaml": "maxPods: 3\n"})
	if err != nil {
		t.Fatal(err)
	}
	k := got.Kubelet
	if path, ca := k.StaticPodPath, k.Authentication.X509.ClientCAFile; !filepath.IsAbs(path) || filepath.Base(path) != "manifests" ||
		ca != filepath.Join(filepath.Dir(path), "conf.d", "ca.crt") || *k.ResolverConfig != "/etc/resolv.conf" || k.MaxPods != 0 {
		t.Errorf("read as %q %q %q", path, ca, *k.ResolverConfig)
	}
	if all := strings.Join(got.Warnings, "\n"); !strings.Contains(all, "b.yaml\" is passed over") || len(got.Warnings) != 1 {
		t.Errorf("warnings %q", all)
	}
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(empty, ""); err == nil || !strings.Contains(err.Error(), "empty.yaml\": is empty") {
		t.Errorf("an empty file: %v", err)
	}
}

// TestNamed: what has no effect, or is refused, is in docs/kubelet.md by name and reason.
func TestNamed(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/kubelet.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	why := map[string]string{}
	for name, text := range ignored {
		why[name] = text
	}
	for name, rule := range fixed {
		why[name] = rule.why
	}
	for name, text := range why {
		if !strings.Contains(doc, "`"+name+"`") || !strings.Contains(doc, text) {
			t.Errorf("docs/kubelet.md does not say that %s: %s", name, text)
		}
	}
	for _, gate := range switched {
		if !strings.Contains(doc, "`"+gate+"`") {
			t.Errorf("docs/kubelet.md does not name the gate %s", gate)
		}
	}
}
