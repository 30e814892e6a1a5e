package deployment

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// parseSet makes a set of "a#3 8 have=8 well=7 desired=10 max=12": of image a and
// rollout revision 3, of eight pods, that has eight of which seven are available, with
// the sizes of its deployment that it has noted.
func parseSet(t *testing.T, i int, text string) *appsv1.ReplicaSet {
	words := strings.Fields(text)
	image, revision, _ := strings.Cut(words[0], "#")
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Name: image, UID: types.UID(image), Annotations: map[string]string{revisionAnnotation: revision, "cause": image},
		CreationTimestamp: metav1.NewTime(now.Add(time.Duration(i-100) * time.Hour)),
	}}
	rs.Spec.Template = templateOf(image)
	rs.Spec.Template.Labels = map[string]string{hashLabel: "h" + image}
	rs.Spec.Replicas = new(int32)
	rs.Status.ObservedGeneration = 1
	for i, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		if i == 0 {
			k, v = "spec", w
		}
		var n int32
		if _, err := fmt.Sscan(v, &n); err != nil && k != "quota" && v != "x" {
			t.Fatal(w, err)
		}
		switch k {
		case "spec":
			*rs.Spec.Replicas = n
		case "have":
			rs.Status.Replicas = n
		case "well":
			rs.Status.ReadyReplicas, rs.Status.AvailableReplicas = n, n
		case "going":
			rs.Status.TerminatingReplicas = &n
		case "desired":
			rs.Annotations[desiredAnnotation] = v
		case "max":
			rs.Annotations[maximumAnnotation] = v
		case "quota":
			rs.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Message: v}}
		default:
			t.Fatal(w)
		}
	}
	return rs
}

func templateOf(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}}
}

// parseDeployment makes one of "b 10 surge=2 missing=0 rollback=1 paused".
func parseDeployment(t *testing.T, text string) *appsv1.Deployment {
	words := strings.Fields(text)
	var n, history, deadline int32 = 0, 10, 600
	surge, missing := intstr.FromInt32(0), intstr.FromInt32(1)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", UID: "d", Generation: 1, Annotations: map[string]string{"cause": words[0]}}}
	d.Spec = appsv1.DeploymentSpec{
		Replicas: &n, RevisionHistoryLimit: &history, ProgressDeadlineSeconds: &deadline, Selector: &metav1.LabelSelector{}, Template: templateOf(words[0]),
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &missing}},
	}
	for i, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch {
		case i == 0:
			if _, err := fmt.Sscan(w, &n); err != nil {
				t.Fatal(w, err)
			}
		case k == "surge":
			surge = intstr.Parse(v)
		case k == "missing":
			missing = intstr.Parse(v)
		case k == "rollback":
			d.Annotations[appsv1.DeprecatedRollbackTo] = v
		case k == "paused":
			d.Spec.Paused = true
		case k == "recreate":
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		case k == "history":
			if _, err := fmt.Sscan(v, &history); err != nil {
				t.Fatal(w, err)
			}
		default:
			t.Fatal(w)
		}
	}
	return d
}

// shown are the sizes that a plan changes, the sets it removes, and its rollback.
func shown(p plan) string {
	var out []string
	for _, s := range p.steps {
		switch {
		case s.verb == remove:
			out = append(out, "remove "+s.set.Name)
		case s.verb == create:
			out = append(out, fmt.Sprintf("new %d", *s.set.Spec.Replicas))
		case *s.set.Spec.Replicas != s.from:
			out = append(out, fmt.Sprintf("%s %d>%d", s.set.Name, s.from, *s.set.Spec.Replicas))
		}
	}
	if p.back != nil {
		out = append(out, p.back.reason)
		if p.back.to != nil {
			out = append(out, "to "+p.back.to.Name)
		}
	}
	return strings.Join(out, ", ")
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		why, deployment string
		sets            []string
		want            string
	}{
		{"the first set is made whole", "a 10 surge=3", nil, "new 10"},
		{"a new one as far as the surge goes", "b 10 surge=3", []string{"a#1 10 have=10 well=10 desired=10 max=13"}, "a 10>9, new 3"},
		{"which may be nothing", "b 10", []string{"a#1 10 have=10 well=10 desired=10 max=10"}, "a 10>9, new 0"},
		{"both bounds round to nothing: one may be missing", "b 3 surge=0 missing=1%",
			[]string{"a#1 3 have=3 well=3 desired=3 max=3", "b#2 0 desired=3 max=3"}, "a 3>2"},
		{"what is broken goes first", "b 10 surge=3 missing=2",
			[]string{"a#1 8 have=8 well=5 desired=10 max=13", "b#2 5 have=5 well=3 desired=10 max=13"}, "a 8>5"},
		{"old ones go, as many as the new ones make up for", "b 10 surge=2 missing=0",
			[]string{"a#1 10 have=10 well=10 desired=10 max=12", "b#2 2 have=2 well=2 desired=10 max=12"}, "a 10>8"},
		{"growth is shared out", "b 20 surge=0", []string{"a#1 6 have=6 well=6 desired=10 max=10", "b#2 4 have=4 desired=10 max=10"}, "a 6>12, b 4>8"},
		{"what rounding leaves goes to the largest", "b 12 surge=0", []string{"a#1 6 have=6 well=6 desired=10 max=10", "b#2 4 have=4 desired=10 max=10"}, "a 6>7, b 4>5"},
		{"so is decline", "b 5 surge=0", []string{"a#1 6 have=6 well=6 desired=10 max=10", "b#2 4 have=4 desired=10 max=10"}, "a 6>3, b 4>2"},
		{"to nothing", "b 0 surge=2", []string{"a#1 6 have=6 well=6 desired=10 max=12", "b#2 4 have=4 desired=10 max=12"}, "a 6>0, b 4>0"},
		{"where there is nothing to share, nobody changes", "b 12 surge=0 paused",
			[]string{"a#1 8 have=8 well=8 desired=10 max=10", "b#2 4 have=4 well=4 desired=10 max=10"}, ""},
		{"a size that is no number is none", "b 10 surge=0 missing=5",
			[]string{"a#1 6 have=6 well=6 desired=-3 max=x", "b#2 4 have=4 well=4 desired=10 max=10"}, "a 6>1"},
		{"when the new one has all, adopted ones go", "b 4 surge=0", []string{"a#1 2 have=2 well=2 desired=9 max=9", "b#2 4 have=4 well=4 desired=4 max=4"}, "a 2>0"},
		{"recreate waits for all old pods", "b 3 recreate", []string{"a#1 3 have=3 well=3 desired=3 max=3"}, "a 3>0"},
		{"and then comes at once", "b 3 recreate", []string{"a#1 0 desired=3 max=3"}, "new 3"},
		{"paused, nothing rolls, but history is kept short", "c 3 paused history=1",
			[]string{"a#1 0", "b#2 0", "c#3 3 have=3 well=3 desired=3 max=3"}, "remove a"},
		{"unless one is to be gone back to", "c 3 paused history=1 rollback=1",
			[]string{"a#1 0", "b#2 0", "c#3 3 have=3 well=3 desired=3 max=3"}, ""},
		{"back to a revision", "c 3 rollback=1", []string{"a#1 0", "b#2 0", "c#3 3 desired=3 max=3"}, "DeploymentRollback, to a"},
		{"back to the last", "c 3 rollback=0", []string{"a#1 0", "b#2 0", "c#3 3 desired=3 max=3"}, "DeploymentRollback, to b"},
		{"to where it is", "c 3 rollback=3", []string{"b#2 0", "c#3 3 desired=3 max=3"}, "DeploymentRollbackTemplateUnchanged"},
		{"to what is gone", "c 3 rollback=1", []string{"b#2 0", "c#3 3 desired=3 max=3"}, "DeploymentRollbackRevisionNotFound"},
		{"there is no last", "c 3 rollback=0", []string{"c#3 3 desired=3 max=3"}, "DeploymentRollbackRevisionNotFound"},
		{"nonsense is no request", "c 3 rollback=first", []string{"c#3 3 desired=3 max=3"}, ""},
	} {
		var sets []*appsv1.ReplicaSet
		for i, text := range c.sets {
			sets = append(sets, parseSet(t, i, text))
		}
		none := func(*appsv1.ReplicaSet) bool { return false }
		if got := shown(decide(parseDeployment(t, c.deployment), sets, none, now)); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
}

// A set that nobody has looked at yet has no pods that go; one that was and does not
// say makes the sum unknown.
func TestTerminating(t *testing.T) {
	for want, sets := range map[string][]string{
		"3": {"a#1 0 going=1", "b#2 1 going=2"}, "none": {"a#1 0 going=1", "b#2 1"},
	} {
		var all []*appsv1.ReplicaSet
		for i, text := range sets {
			all = append(all, parseSet(t, i, text))
		}
		unseen := parseSet(t, 9, "c#3 1")
		unseen.Status = appsv1.ReplicaSetStatus{}
		got := "none"
		if n := terminatingReplicas(append(all, unseen)); n != nil {
			got = fmt.Sprint(*n)
		}
		if got != want {
			t.Errorf("%v: %s, want %s", sets, got, want)
		}
	}
}

// Of several sets that cannot make pods the new one is told of, then the oldest.
func TestReplicaFailure(t *testing.T) {
	sets := []*appsv1.ReplicaSet{parseSet(t, 0, "a#1 1 quota=first"), parseSet(t, 1, "b#2 1 quota=second"), parseSet(t, 2, "c#3 1 quota=third")}
	for image, want := range map[string]string{"c": "third", "d": "first"} {
		r := newRound(parseDeployment(t, image+" 3"), sets, now)
		if got := r.replicaFailure(); got == nil || got.Message != want {
			t.Errorf("%s: %v, want %q", image, got, want)
		}
	}
}

// With the template come its annotations; the deployment's own, and those of tools, stay.
func TestApply(t *testing.T) {
	d := parseDeployment(t, "b 3 rollback=1")
	d.Annotations[revisionAnnotation], d.Annotations["extra"], d.Annotations[corev1.LastAppliedConfigAnnotation] = "2", "e", "{}"
	next := (&rollback{to: parseSet(t, 0, "a#1 0")}).apply(d)
	keys := []string{}
	for k, v := range next.Annotations {
		keys = append(keys, k+"="+v)
	}
	slices.Sort(keys)
	want := "cause=a deployment.kubernetes.io/revision=2 kubectl.kubernetes.io/last-applied-configuration={}"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("annotations %q, want %q", got, want)
	}
	if next.Spec.Template.Spec.Containers[0].Image != "a" || next.Spec.Template.Labels[hashLabel] != "" {
		t.Errorf("template %+v", next.Spec.Template)
	}
	if d.Spec.Template.Spec.Containers[0].Image != "b" || d.Annotations["extra"] != "e" {
		t.Error("the deployment itself was changed")
	}
}
