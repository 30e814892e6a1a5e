package statefulset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// parsePod makes a pod of "0old+": number 0 of the old revision, available; "-"
// stands for running and not ready, "!" for failed, "~" for being deleted, "?" for
// pending.
func parsePod(word string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "db-" + word[:1]}}
	pod.Status.Phase = corev1.PodRunning
	switch word[len(word)-1] {
	case '+':
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	case '!':
		pod.Status.Phase = corev1.PodFailed
	case '?':
		pod.Status.Phase = corev1.PodPending
	case '~':
		pod.DeletionTimestamp = &metav1.Time{}
	}
	pod.Labels = map[string]string{appsv1.StatefulSetRevisionLabel: word[1 : len(word)-1], appsv1.StatefulSetPodNameLabel: pod.Name}
	return pod
}

// What is done with the pods of a set that is being updated from old to new.
func TestDecide(t *testing.T) {
	for _, c := range []struct {
		why, set, pods, want string
	}{
		{"the first comes first", "replicas=3", "", "create 0"},
		{"the next waits for it", "replicas=3", "0new-", ""},
		{"and comes then", "replicas=3", "0new+", "create 1"},
		{"all at once", "replicas=3 parallel", "", "create 0, create 1, create 2"},
		{"one that is missing comes back", "replicas=3", "0new+ 2new+", "create 1"},
		{"a failed one is removed", "replicas=2", "0new! 1new+", "delete 0"},
		{"one that is going is waited for", "replicas=2", "0new~ 1new+", ""},
		{"the last goes first", "replicas=1", "0new+ 1new+ 2new+", "delete 2"},
		{"while it goes, no other does", "replicas=1", "0new+ 1new+ 2new~", ""},
		{"unless in parallel", "replicas=1 parallel", "0new+ 1new+ 2new~", "delete 1"},
		{"none goes while another is not well", "replicas=1", "0new- 1new+ 2new+", ""},
		{"an update begins at the end", "replicas=3", "0old+ 1old+ 2old+", "delete 2"},
		{"and goes on", "replicas=3", "0old+ 1old+ 2new+", "delete 1"},
		{"when that is well", "replicas=3", "0old+ 1old+ 2new-", ""},
		{"not below the partition", "replicas=3 partition=2", "0old+ 1old+ 2new+", ""},
		{"below it, what is lost comes back old", "replicas=3 partition=2", "1old+ 2new+", "create 0 old"},
		{"two at once", "replicas=3 unavailable=2", "0old+ 1old+ 2old+", "delete 2, delete 1"},
		{"in parallel, what is broken is not spared", "replicas=3 parallel", "0old- 1old+ 2new+", "delete 0"},
		{"on deletion only", "replicas=2 ondelete", "0old+ 1old+", ""},
		{"from another number on", "replicas=2 start=1", "0new+", "create 1"},
	} {
		set := parseSet(c.set)
		var pods []*corev1.Pod
		for _, word := range strings.Fields(c.pods) {
			pods = append(pods, parsePod(word))
		}
		p := decide(set, pods, view{
			current: version{"old", &set.Spec.Template}, update: version{"new", &set.Spec.Template}, now: time.Unix(1e9, 0),
			claims: func(*corev1.Pod) (settled, left, missing bool) { return true, false, false },
		})
		var steps []string
		for _, phase := range p.phases {
			for _, s := range phase {
				text := string(s.verb) + " " + strings.TrimPrefix(s.pod.Name, "db-")
				if s.verb == create && revisionOf(s.pod) == "old" {
					text += " old"
				}
				steps = append(steps, text)
			}
		}
		if got := strings.Join(steps, ", "); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
}

// The claims of a pod that waits for its start get their owners, and those that are
// missing are made; one that runs, when it is its turn.
func TestClaims(t *testing.T) {
	for _, c := range []struct {
		why, set, pods  string
		settled, misses bool
		want            string
	}{
		{"they are missing", "replicas=2", "0new?", true, true, "claim 0"},
		{"they have other owners now", "replicas=2", "0new?", false, false, "claim 0"},
		{"all is well", "replicas=1", "0new?", true, false, ""},
		{"it is not well: later", "replicas=1", "0new-", false, false, ""},
		{"in parallel, at once", "replicas=1 parallel", "0new-", false, false, "update 0"},
		{"it runs", "replicas=1", "0new+", false, false, "update 0"},
	} {
		set := parseSet(c.set)
		p := decide(set, []*corev1.Pod{parsePod(c.pods)}, view{
			current: version{"old", &set.Spec.Template}, update: version{"new", &set.Spec.Template}, now: time.Unix(1e9, 0),
			claims: func(*corev1.Pod) (settled, left, missing bool) { return c.settled, false, c.misses },
		})
		got := ""
		for _, phase := range p.phases {
			for _, s := range phase {
				got += string(s.verb) + " " + strings.TrimPrefix(s.pod.Name, "db-")
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
}

func parseSet(text string) *appsv1.StatefulSet {
	replicas, partition, history := int32(0), int32(0), int32(10)
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &replicas, RevisionHistoryLimit: &history, Selector: &metav1.LabelSelector{},
		UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
			Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition},
		},
	}}
	for _, word := range strings.Fields(text) {
		name, number, _ := strings.Cut(word, "=")
		var n int32
		if _, err := fmt.Sscan(number, &n); number != "" && err != nil {
			panic(word)
		}
		switch name {
		case "replicas":
			replicas = n
		case "partition":
			partition = n
		case "unavailable":
			limit := intstr.FromInt32(n)
			set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &limit
		case "parallel":
			set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		case "ondelete":
			set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
		case "start":
			set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n}
		default:
			panic(word)
		}
	}
	return set
}

func TestSplit(t *testing.T) {
	for name, want := range map[string]string{"db-0": "db 0", "a-b-12": "a-b 12", "db": " -1", "db-": " -1", "db-x1": " -1", "db-99999999999": "db -1"} {
		set, n := split(name)
		if got := fmt.Sprintf("%s %d", set, n); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
