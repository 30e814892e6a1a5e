package scheduler_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

var update = flag.Bool("update", false, "write what was seen into the transcripts")

// A transcript is prose, a cluster and pods, and what the scheduler said. Lines:
//
//	node NAME cpu=4 memory=8Gi pods=110 label=K=V taint=K=V:EFFECT cordoned image=NAME:SIZE
//	pod NAME cpu=1 memory=1Gi prio=N label=K=V select=K=V tolerate=K port=80 on=NODE owner=X
//	    spread=KEY:SKEW[:soft] near=K=V@KEY far=K=V@KEY like=K=V@KEY:WEIGHT never-preempt
//	budget K=V allowed=N
//	remove NODE
//	namespace NAME K=V
//
// and those of storage; pods have claim=NAME, in=NAMESPACE, only=NODE and more.
//
// A pod without on= is decided, and placed where the decision says.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, block := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
				input, _, _ := strings.Cut(block+"\n", "----\n")
				input = strings.TrimRight(input, "\n")
				out = append(out, input+"\n----\n"+play(t, input))
			}
			got := strings.Join(out, "\n\n") + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(raw) {
				t.Errorf("the scheduler says otherwise (run with -update and read the diff):\n%s", got)
			}
		})
	}
}

// play runs one block and returns what was said.
func play(t *testing.T, input string) string {
	w := scheduler.NewWorld(profile.Default()[0])
	w.SetSelector(func(p *corev1.Pod) labels.Selector {
		if owner := p.Labels["owner"]; owner != "" {
			return labels.SelectorFromSet(labels.Set{"owner": owner})
		}
		return nil
	})
	storage := newShelf()
	w.SetStorage(storage)
	var budgets []*policyv1.PodDisruptionBudget
	var said []string
	for _, line := range strings.Split(input, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if storage.read(t, words) {
			continue
		}
		switch words[0] {
		case "node":
			w.SetNode(node(t, words[1:]))
		case "remove":
			w.RemoveNode(words[1])
		case "namespace":
			k, v, _ := strings.Cut(words[2], "=")
			w.SetNamespace(words[1], map[string]string{k: v})
		case "budget":
			budgets = append(budgets, budget(t, words[1:]))
		case "pod":
			pod, on := pod(t, words[1:])
			if on != "" {
				w.Place(pod, on)
				continue
			}
			said = append(said, decide(w, pod, budgets))
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return strings.Join(said, "\n")
}

func decide(w *scheduler.World, pod *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) string {
	d := w.Decide(pod)
	if d.Node != "" {
		w.Place(pod, d.Node)
		var scores []string
		for _, s := range d.Scores {
			scores = append(scores, fmt.Sprintf("%s %d", s.Node, s.Total))
		}
		if len(scores) < 2 || d.Scores[0].Total == d.Scores[1].Total {
			return pod.Name + " → " + d.Node
		}
		return fmt.Sprintf("%s → %s (%s)", pod.Name, d.Node, strings.Join(scores, ", "))
	}
	node, victims, text := d.Preempt(budgets)
	if node != "" {
		slices.Sort(victims)
		w.Nominate(pod, node)
		return fmt.Sprintf("%s waits for %s, evicting %s", pod.Name, node, strings.Join(victims, " "))
	}
	if d.Nodes == 0 {
		return pod.Name + " pending: " + d.Sentence("")
	}
	return pod.Name + " pending: " + text
}

func node(t *testing.T, words []string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: words[0], Labels: map[string]string{corev1.LabelHostname: words[0]}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "label":
			key, value, _ := strings.Cut(v, "=")
			n.Labels[key] = value
		case "taint":
			kv, effect, _ := strings.Cut(v, ":")
			key, value, _ := strings.Cut(kv, "=")
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
		case "cordoned":
			n.Spec.Unschedulable = true
		case "image":
			name, size, _ := strings.Cut(v, ":")
			q := resource.MustParse(size)
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{"docker.io/library/" + name + ":latest"}, SizeBytes: q.Value()})
		default:
			n.Status.Allocatable[corev1.ResourceName(k)] = resource.MustParse(v)
		}
	}
	return n
}

func budget(t *testing.T, words []string) *policyv1.PodDisruptionBudget {
	k, v, _ := strings.Cut(words[0], "=")
	allowed, err := strconv.Atoi(strings.TrimPrefix(words[1], "allowed="))
	if err != nil {
		t.Fatal(err)
	}
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{k: v}}},
		Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: int32(allowed)},
	}
}

func pod(t *testing.T, words []string) (p *corev1.Pod, on string) {
	p = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: words[0], UID: types.UID(words[0]), Labels: map[string]string{}}}
	p.Spec.Containers = []corev1.Container{{Image: words[0]}}
	c := &p.Spec.Containers[0]
	c.Resources.Requests = corev1.ResourceList{}
	p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	affinity := false
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "on":
			on = v
		case "image":
			c.Image = v
		case "prio":
			n, err := strconv.ParseInt(v, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			prio := int32(n)
			p.Spec.Priority = &prio
		case "never-preempt":
			never := corev1.PreemptNever
			p.Spec.PreemptionPolicy = &never
		case "claim":
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: v, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: v},
			}})
		case "min-domains":
			n, _ := strconv.Atoi(v)
			least := int32(n)
			p.Spec.TopologySpreadConstraints[0].MinDomains = &least
		case "taints":
			policy := corev1.NodeInclusionPolicy(v)
			p.Spec.TopologySpreadConstraints[0].NodeTaintsPolicy = &policy
		case "only":
			p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{v}}}}},
			}}
			affinity = true
		case "team": // anti-affinity to its own labels in namespaces of a team
			affinity = true
			far := term("app=" + p.Labels["app"] + "@kubernetes.io/hostname")
			far.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": v}}
			p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{far}
		case "in":
			p.Namespace = v
		case "owner":
			yes := true
			p.Labels["owner"] = v
			p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(v), Controller: &yes}}
		case "label":
			key, value, _ := strings.Cut(v, "=")
			p.Labels[key] = value
		case "select":
			key, value, _ := strings.Cut(v, "=")
			p.Spec.NodeSelector = map[string]string{key: value}
		case "tolerate":
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: v, Operator: corev1.TolerationOpExists})
		case "port":
			n, _ := strconv.Atoi(v)
			c.Ports = append(c.Ports, corev1.ContainerPort{HostPort: int32(n), ContainerPort: int32(n)})
		case "spread":
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, spreading(p, v))
		case "near":
			affinity = true
			p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{term(v)}
		case "far":
			affinity = true
			p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{term(v)}
		case "like":
			affinity = true
			v, weight, _ := strings.Cut(v, ":")
			n, _ := strconv.Atoi(weight)
			p.Spec.Affinity.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: int32(n), PodAffinityTerm: term(v)}}
		default:
			c.Resources.Requests[corev1.ResourceName(k)] = resource.MustParse(v)
		}
	}
	if !affinity {
		p.Spec.Affinity = nil
	}
	return p, on
}

// term reads "app=x@zone".
func term(s string) corev1.PodAffinityTerm {
	kv, key, _ := strings.Cut(s, "@")
	k, v, _ := strings.Cut(kv, "=")
	return corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{k: v}}}
}

// spreading reads "zone:1" or "zone:1:soft", over pods with the same labels.
func spreading(p *corev1.Pod, s string) corev1.TopologySpreadConstraint {
	parts := strings.Split(s, ":")
	skew, _ := strconv.Atoi(parts[1])
	c := corev1.TopologySpreadConstraint{
		TopologyKey: parts[0], MaxSkew: int32(skew), WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
	}
	if len(parts) > 2 {
		c.WhenUnsatisfiable = corev1.ScheduleAnyway
	}
	return c
}
