package cli

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// The life of a container, told in docker's words, each thing once, however often its pod
// is seen.
func TestEvents(t *testing.T) {
	at := func(second int64) metav1.Time { return metav1.Unix(1_700_000_000+second, 0) }
	pod := seen(t, corev1.ContainerState{}, "--name", "web", "--network", "bridge", "app")
	pod.CreationTimestamp = at(0)
	pod.Status.ContainerStatuses[0].RestartCount = 0
	var out strings.Builder
	keep, err := eventFilters(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &eventWriter{out: &out, format: "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}", keep: keep, primed: true, known: map[types.UID]*pastOf{}}
	see := func() {
		t.Helper()
		for range 2 {
			if err := w.tell(w.of(pod).next(pod, time.Unix(1_700_000_050, 0))); err != nil {
				t.Fatal(err)
			}
		}
	}
	see()
	c := &pod.Status.ContainerStatuses[0]
	c.State.Running = &corev1.ContainerStateRunning{StartedAt: at(1)}
	see()
	pod.Annotations[pausedAnnotation] = c.ContainerID
	see()
	delete(pod.Annotations, pausedAnnotation)
	pod.Labels[memberPrefix+"mine"] = isMember
	see()
	delete(pod.Labels, memberPrefix+"mine")
	ended := &corev1.ContainerStateTerminated{StartedAt: at(1), FinishedAt: at(2), ExitCode: 137, Reason: "OOMKilled"}
	c.LastTerminationState.Terminated, c.State.Running = ended, &corev1.ContainerStateRunning{StartedAt: at(3)}
	see()
	c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at(3), FinishedAt: at(4)}}
	pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "DeadlineExceeded"
	see()
	if err := w.all(nil); err != nil {
		t.Fatal(err)
	}
	want := `container create web
container start web
container pause web
container unpause web
network connect mine
network disconnect bridge
container oom web
container die web
container start web
network connect bridge
network disconnect mine
container die web
container stop web
container destroy web
`
	sorted := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	if sorted(out.String()) != sorted(want) {
		t.Errorf("told\n%swant\n%s", out.String(), want)
	}
}

// Networks come and go, each once; what was there before nobody has asked for.
func TestNetworkEvents(t *testing.T) {
	network := func(name string) *corev1.Service {
		n := networkService("default", name, map[string]string{networkLabelsAnnotation: `{"team":"red"}`})
		n.UID, n.CreationTimestamp = types.UID("ab-"+name), metav1.Unix(1_700_000_000, 0)
		return n
	}
	keep, err := eventFilters([]string{"type=network", "label=team=red"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	w := &eventWriter{out: &out, format: "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}", keep: keep}
	told := func(all []happening) {
		t.Helper()
		if err := w.tell(all); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.all(nil, w.allNetworks([]*corev1.Service{network("old")})...); err != nil {
		t.Fatal(err)
	}
	told(w.allNetworks([]*corev1.Service{network("old"), network("new")}))
	for _, e := range []watch.Event{{Type: watch.Added, Object: network("old")}, {Type: watch.Added, Object: network("third")}, {Type: watch.Modified, Object: network("third")}, {Type: watch.Deleted, Object: network("old")}} {
		if err := w.network(e); err != nil {
			t.Fatal(err)
		}
	}
	told(w.allNetworks([]*corev1.Service{network("third")}))
	if want := "create abnew new\ncreate abthird third\ndestroy abold old\ndestroy abnew new\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if _, err := eventFilters([]string{"type=image"}); err == nil {
		t.Error("it waits for what never comes")
	}
}

// What --filter fits, and docker's line of an event.
func TestEventFilters(t *testing.T) {
	pod := seen(t, corev1.ContainerState{}, "--name", "web", "-l", "tier=front", "app")
	h := happened(pod, time.Unix(1_700_000_000, 0).UTC(), "die", "exitCode", "3")
	if got, want := h.String(), "2023-11-14T22:13:20.000000000Z container die 4711 (exitCode=3, image=app, name=web, tier=front)"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for filters, want := range map[string]bool{
		"": true, "container=web": true, "container=4711": true, "container=we": false, "event=die": true, "event=start event=die": true,
		"event=start": false, "image=app": true, "label=tier": true, "label=tier=back": false, "type=network": false, "network=mine": false,
		"type=container event=die label=tier=front": true, "scope=local": true,
	} {
		keep, err := eventFilters(strings.Fields(filters))
		if err != nil {
			t.Fatal(err)
		}
		if got := keep(h); got != want {
			t.Errorf("%q: %v, want %v", filters, got, want)
		}
	}
	if _, err := eventFilters([]string{"colour=red"}); err == nil {
		t.Error("a filter that there is not is taken")
	}
}
