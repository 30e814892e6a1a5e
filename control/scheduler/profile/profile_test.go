package profile_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/extender"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

const head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func TestParse(t *testing.T) {
	cfg, err := profile.Parse([]byte(head + `
podInitialBackoffSeconds: 2
percentageOfNodesToScore: 30
leaderElection: {leaderElect: true}
profiles:
- schedulerName: default-scheduler
  percentageOfNodesToScore: 70
- schedulerName: packer
  plugins:
    multiPoint:
      disabled: [{name: PodTopologySpread}]
    score:
      disabled: [{name: "*"}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    postFilter:
      disabled: [{name: DefaultPreemption}]
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Profiles) != 2 || cfg.Profiles[0].PercentageOfNodesToScore != 70 || cfg.Profiles[1].PercentageOfNodesToScore != 30 {
		t.Fatalf("profiles: %+v", cfg.Profiles)
	}
	if cfg.InitialBackoff.Seconds() != 2 || cfg.MaxBackoff.Seconds() != 10 {
		t.Errorf("back-off %v to %v", cfg.InitialBackoff, cfg.MaxBackoff)
	}
	packer := cfg.Profiles[1]
	if len(packer.Scores) != 1 || packer.Scores[0].Name() != "NodeResourcesFit" || packer.Scores[0].Weight() != 7 {
		t.Errorf("scores: %v", packer.Scores)
	}
	if slices.ContainsFunc(packer.Filters, func(f scheduler.Filter) bool { return f.Name() == "PodTopologySpread" }) {
		t.Error("a disabled plugin filters")
	}
	if !packer.NoPreemption || cfg.Profiles[0].NoPreemption {
		t.Error("preemption is not as configured")
	}
	if n := len(profile.Default()[0].Filters); n != len(cfg.Profiles[0].Filters) {
		t.Errorf("an empty profile has %d filters, not the default's %d", len(cfg.Profiles[0].Filters), n)
	}
}

// spreading is a configuration with default constraints.
func spreading(constraints string) string {
	return head + "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [" + constraints + "]}}]}]"
}

// What others have may be disabled though it is not here.
func TestParseDisablesTheUnknown(t *testing.T) {
	if _, err := profile.Parse([]byte(head + "profiles: [{plugins: {multiPoint: {disabled: [{name: DeferredPodScheduling}]}}}]")); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	for body, want := range map[string]string{
		"kind: Other": "want a KubeSchedulerConfiguration",
		head + "profiles: [{plugins: {filter: {enabled: [{name: Nobody}]}}}]":                                                                       "is not known",
		head + "profiles: [{schedulerName: a}, {}]":                                                                                                 "schedulerName",
		head + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Worst}}}]}]":                                     "\"Worst\" is not known",
		head + "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]":                                         "0-100",
		head + "podInitialBackoffSeconds: 20":                                                                                                       "podMaxBackoffSeconds",
		head + "parallelism: 0":                                                                                                                     "parallelism",
		head + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {}}, {name: NodeResourcesFit, args: {}}]}]":                               "given twice",
		head + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResources: [a b]}}]}]":                                            "ignoredResources",
		head + "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResourceGroups: [a/b]}}]}]":                                       "without a slash",
		head + "profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu, weight: 2}]}}]}]":                 "must be 1",
		head + "profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu}, {name: cpu}]}}]}]":               "given twice",
		head + "profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 101, score: 1}]}}]}]":                                 "shape",
		spreading("{maxSkew: 0, topologyKey: a, whenUnsatisfiable: DoNotSchedule}"):                                                                 "maxSkew",
		spreading("{maxSkew: 1, topologyKey: '', whenUnsatisfiable: DoNotSchedule}"):                                                                "topologyKey",
		spreading("{maxSkew: 1, topologyKey: a, whenUnsatisfiable: Perhaps}"):                                                                       "neither",
		spreading("{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}"):                                              "selector",
		spreading("{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: a, whenUnsatisfiable: DoNotSchedule}"): "given twice",
		head + "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]":                                                                      "does not score",
		head + "profiles: [{plugins: {filter: {enabled: [{name: ImageLocality}]}}}]":                                                                "does not filter",
		head + "profiles: [{plugins: {score: {enabled: [{name: ImageLocality}, {name: ImageLocality}]}}}]":                                          "twice",
		head + "profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: -1}]}}}]":                                                     "negative",
		head + "profiles: [{plugins: {multiPoint: {disabled: [{name: PrioritySort}]}}}]":                                                            "PrioritySort cannot",
		head + "profiles: [{plugins: {multiPoint: {disabled: [{name: DefaultBinder}]}}}]":                                                           "DefaultBinder cannot",
		head + "extenders: [{urlPrefix: 'http://a', prioritizeVerb: p}]":                                                                            "not positive",
		head + "extenders: [{urlPrefix: 'http://a', bindVerb: b}, {urlPrefix: 'http://b', bindVerb: b}]":                                            "only one can",
		head + "extenders: [{urlPrefix: 'http://a', managedResources: [{name: foo}]}]":                                                              "no extended resource",
		head + "extenders: [{urlPrefix: 'http://a', managedResources: [{name: a.io/b}, {name: a.io/b}]}]":                                           "given twice",
		head + "surprise: 1": "surprise",
		head + "profiles: [{plugins: {preFilter: {disabled: [{name: NodePorts}]}}}]":                                                    "at this point alone",
		head + "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: zone}]}}]}]": "List",
	} {
		if _, err := profile.Parse([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}

// An extender keeps one node and gives it points.
func TestExtender(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var args extenderv1.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			t.Error(err)
		}
		switch r.URL.Path {
		case "/x/filter":
			kept := []string{"n2"}
			_ = json.NewEncoder(w).Encode(extenderv1.ExtenderFilterResult{NodeNames: &kept, FailedNodes: extenderv1.FailedNodesMap{"n1": "no licence"}})
		case "/x/prioritize":
			_ = json.NewEncoder(w).Encode(extenderv1.HostPriorityList{{Host: "n2", Score: 4}})
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	e, err := extender.New(configv1.Extender{
		URLPrefix: server.URL + "/x", FilterVerb: "filter", PrioritizeVerb: "prioritize", Weight: 2, NodeCacheCapable: true,
		ManagedResources: []configv1.ExtenderManagedResource{{Name: "licence.io/seat"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{}}}}
	if e.Interested(pod) {
		t.Error("interested in a pod without its resource")
	}
	nodes := []*scheduler.Node{
		scheduler.NewNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}), scheduler.NewNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}),
	}
	kept, refused, err := e.Filter(pod, nodes)
	if err != nil || len(kept) != 1 || kept[0].Name != "n2" || refused["n1"].Text != "no licence" {
		t.Fatalf("kept %v, refused %v, %v", kept, refused, err)
	}
	points, err := e.Prioritize(pod, kept)
	if err != nil || points["n2"] != 80 {
		t.Fatalf("points %v, %v", points, err)
	}
}
