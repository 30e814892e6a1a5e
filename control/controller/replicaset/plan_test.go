package replicaset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/controller"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// parse makes a pod of a line: "name node=n1 phase=Running ready=10m age=1h
// restarts=2 cost=-5".
func parse(line string) *corev1.Pod {
	words := strings.Fields(line)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: words[0], UID: types.UID(words[0])}}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "node":
			p.Spec.NodeName = v
		case "phase":
			p.Status.Phase = corev1.PodPhase(v)
		case "ready":
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago(v)}}
		case "age":
			p.CreationTimestamp = ago(v)
		case "restarts":
			var n int32
			if _, err := fmt.Sscan(v, &n); err != nil {
				panic("restarts " + v)
			}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}}
		case "cost":
			p.Annotations = map[string]string{corev1.PodDeletionCost: v}
		default:
			panic("unknown word " + w)
		}
	}
	return p
}

func ago(text string) metav1.Time {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return metav1.NewTime(now.Add(-d))
}

// Which of two pods goes first; in each case it is the one that is named first.
func TestExpendable(t *testing.T) {
	cases := []struct{ why, first, second string }{
		{"it has no node", "a phase=Pending", "b node=n1 phase=Pending"},
		{"it has not started", "a node=n1 phase=Pending", "b node=n1 phase=Running"},
		{"it is not ready", "a node=n1 phase=Running age=9h", "b node=n1 phase=Running ready=1m age=1h"},
		{"it costs less", "a node=n1 phase=Running ready=9h cost=-5", "b node=n1 phase=Running ready=1m"},
		{"an invalid cost is none", "a node=n1 phase=Running ready=1m cost=cheap", "b node=n1 phase=Running ready=9h cost=0"},
		{"its node has more of them", "a node=crowded phase=Running ready=9h", "b node=n1 phase=Running ready=1m"},
		{"it has been ready for less", "a node=n1 phase=Running ready=1m", "b node=n1 phase=Running ready=9h"},
		{"times of one magnitude are equal", "a node=n1 phase=Running ready=70m", "b node=n1 phase=Running ready=60m"},
		{"it has restarted more", "a node=n1 phase=Running restarts=2 age=9h", "b node=n1 phase=Running restarts=1 age=1h"},
		{"it is younger", "a node=n1 phase=Running age=1m", "b node=n1 phase=Running age=9h"},
	}
	related := []*corev1.Pod{parse("x node=crowded phase=Running"), parse("y node=crowded phase=Running"), parse("z node=n1 phase=Running")}
	for _, c := range cases {
		for _, pods := range [][]*corev1.Pod{{parse(c.first), parse(c.second)}, {parse(c.second), parse(c.first)}} {
			if got := controller.Expendable(pods, related, now)[0].Name; got != "a" {
				t.Errorf("%s: %q goes first", c.why, got)
			}
		}
	}
}

func TestDecide(t *testing.T) {
	cases := []struct {
		want, have     int32
		create, remove int
	}{{3, 0, 3, 0}, {3, 3, 0, 0}, {0, 2, 0, 2}, {2, 5, 0, 3}, {1000, 1, burst, 0}, {0, 900, 0, burst}}
	for _, c := range cases {
		rs := &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Replicas: &c.want}}
		var active []*corev1.Pod
		for i := range c.have {
			active = append(active, parse(fmt.Sprintf("p%d node=n1 phase=Running", i)))
		}
		p := decide(rs, active, func() []*corev1.Pod { return active }, now)
		if p.create != c.create || len(p.delete) != c.remove {
			t.Errorf("%s: create %d, delete %d; want %d, %d", p.reason, p.create, len(p.delete), c.create, c.remove)
		}
	}
}

func TestStatus(t *testing.T) {
	want := int32(3)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Generation: 7}}
	rs.Spec.Replicas, rs.Spec.MinReadySeconds = &want, 60
	active := []*corev1.Pod{parse("a ready=10m"), parse("b ready=20s"), parse("c")}
	got := statusOf(rs, active, active[:1], fmt.Errorf("quota"), now)
	if got.Replicas != 3 || got.ReadyReplicas != 2 || got.AvailableReplicas != 1 || *got.TerminatingReplicas != 1 || got.ObservedGeneration != 7 {
		t.Errorf("status %+v", got)
	}
	if len(got.Conditions) != 1 || got.Conditions[0].Message != "quota" {
		t.Errorf("conditions %+v", got.Conditions)
	}
	if again := controller.NextAvailable(active, rs.Spec.MinReadySeconds, now); again != 40*time.Second {
		t.Errorf("looks again in %v, want 40s", again)
	}
	rs.Status = got
	if got = statusOf(rs, active, nil, nil, now); len(got.Conditions) != 0 {
		t.Errorf("conditions after success %+v", got.Conditions)
	}
}
