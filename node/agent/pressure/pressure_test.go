package pressure

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/usage"
)

func parsed(t *testing.T, k settings.Kubelet) []Threshold {
	t.Helper()
	full := settings.Complete(k)
	list, err := Parse(&full)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestGraceAndReclaim: a soft threshold waits, a crossed one stays crossed until
// its reclaim is reached, and the condition stays for the transition.
func TestGraceAndReclaim(t *testing.T) {
	w := NewWatch(parsed(t, settings.Kubelet{
		EvictionHard: map[string]string{"memory.available": "100Mi", "nodefs.available": "0%"}, EvictionSoft: map[string]string{"memory.available": "20%"},
		EvictionSoftGracePeriod: map[string]string{"memory.available": "30s"}, EvictionMinimumReclaim: map[string]string{"memory.available": "50Mi"},
	}), time.Minute)
	begin := time.Unix(0, 0)
	for _, step := range []struct {
		at        int
		available int64
		want      string
	}{
		{0, 500, ""},
		{10, 150, "MemoryPressure"},
		{40, 150, "MemoryPressure soft"},
		{50, 90, "MemoryPressure hard soft"},
		{60, 120, "MemoryPressure hard soft"}, // above the threshold, below its reclaim
		{70, 220, "MemoryPressure soft"},
		{80, 260, "MemoryPressure"},
		{120, 260, "MemoryPressure"},
		{131, 260, ""},
	} {
		v := w.Judge(Observations{Memory: {step.available << 20, 1000 << 20}, NodeFS: {0, 1}}, begin.Add(time.Duration(step.at)*time.Second))
		var got []string
		for _, c := range v.Conditions {
			got = append(got, string(c))
		}
		for _, d := range v.Due {
			got = append(got, map[bool]string{true: "hard", false: "soft"}[d.Hard])
		}
		if strings.Join(got, " ") != step.want {
			t.Errorf("at %d with %d Mi: %v, want %q", step.at, step.available, got, step.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ signal, value, want string }{
		{"cpu.available", "1", "unsupported eviction signal"}, {"memory.available", "-1", "must be positive"}, {"memory.available", "120%", "between 0% and 100%"},
		{"memory.available", "much", "eviction threshold memory.available"}, {"allocatableMemory.available", "1Gi", "unsupported eviction signal"},
	} {
		_, err := Parse(&settings.Kubelet{EvictionHard: map[string]string{c.signal: c.value}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %q", c.signal, c.value, err, c.want)
		}
	}
}

func rankable(name string, priority int32, request string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c"}}}}
	if request != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request)}
	}
	return p
}

// TestRank: over the request, then priority, then most over the request.
func TestRank(t *testing.T) {
	pods := []*corev1.Pod{
		rankable("within", 0, "1Gi"), rankable("important", 100, ""), rankable("little", 0, "10Mi"), rankable("much", 0, "10Mi"), rankable("unknown", 500, "1Gi"),
	}
	used := map[string]usage.Pod{
		"within": {Memory: 900 << 20, Pids: 9}, "important": {Memory: 950 << 20, Pids: 2}, "little": {Memory: 20 << 20, Pids: 3}, "much": {Memory: 200 << 20, Pids: 1},
	}
	order := func() string {
		var names []string
		for _, p := range pods {
			names = append(names, p.Name)
		}
		return strings.Join(names, " ")
	}
	Rank(pods, used, Memory, Part{})
	if got := order(); got != "unknown much little important within" {
		t.Errorf("for memory: %s", got)
	}
	Rank(pods, used, Pids, Part{})
	if got := order(); got != "unknown within little much important" {
		t.Errorf("for processes: %s", got)
	}
}

func TestExceeded(t *testing.T) {
	limit := resource.MustParse("1Mi")
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}}}},
		Volumes: []corev1.Volume{
			{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}},
			{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit, Medium: corev1.StorageMediumMemory}}},
		},
	}}
	mib := usage.Disk{Bytes: 3 << 19}
	half := usage.Disk{Bytes: 3 << 18}
	for _, c := range []struct {
		used      usage.Pod
		dedicated bool
		want      string
	}{
		{usage.Pod{}, false, ""},
		{usage.Pod{Volumes: map[string]usage.Disk{"m": mib}, Containers: nil}, false, "Pod ephemeral local storage"},
		{usage.Pod{Volumes: map[string]usage.Disk{"v": mib}}, false, `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		{usage.Pod{Volumes: map[string]usage.Disk{"v": half}, Containers: []usage.Container{{Name: "c", Logs: half}}}, false, "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "},
	} {
		if _, got := Exceeded(pod, c.used, c.dedicated); !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%+v: %q, want %q", c.used, got, c.want)
		}
	}
	two := pod.DeepCopy()
	two.Spec.Containers = append(two.Spec.Containers, corev1.Container{Name: "d", Resources: pod.Spec.Containers[0].Resources})
	one := usage.Pod{Containers: []usage.Container{{Name: "c", Root: mib}}}
	if limit, got := Exceeded(two, one, false); limit != ContainerLimit || got != `Container c exceeded its local ephemeral storage limit "1Mi". ` {
		t.Errorf("a container over its limit: %q", got)
	}
	if _, got := Exceeded(two, one, true); got != "" {
		t.Errorf("a layer on the images' own disk: %q", got)
	}
}

// TestMachine reads a machine that a test has written down, and the real one.
func TestMachine(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"meminfo": "MemTotal: 1000 kB\nMemFree: 5 kB\nMemAvailable: 250 kB\n", "loadavg": "0.0 0.0 0.0 2/345 9\n",
		"sys/kernel/pid_max": "32768\n", "sys/kernel/threads-max": "1000\n",
	} {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := Machine{Node: proc, Images: proc, Proc: proc}.Observe()
	if seen[Memory] != (Observation{250 << 10, 1000 << 10}) || seen[Pids] != (Observation{655, 1000}) {
		t.Errorf("memory %v, process numbers %v", seen[Memory], seen[Pids])
	}
	if o := seen[NodeFS]; o.Available <= 0 || o.Available > o.Capacity || seen[ImageFS].Capacity != o.Capacity {
		t.Errorf("disk %v", o)
	}
	var signals []Signal
	for s := range (Machine{Node: "/"}).Observe() {
		signals = append(signals, s)
	}
	if !slices.Contains(signals, Memory) || !slices.Contains(signals, Pids) {
		t.Errorf("the real machine shows %v", signals)
	}
}
