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

// TestFieldsExist: the tables name fields that upstream has.
func TestFieldsExist(t *testing.T) {
	known := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Kubelet]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	for name := range ignored {
		if !known[name] {
			t.Errorf("ignored: no field %q", name)
		}
	}
	for name := range fixed {
		if !known[name] {
			t.Errorf("fixed: no field %q", name)
		}
	}
}
