package roster

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/tally"
)

func dial(t *testing.T, r *Roster) podsv1alpha1.PodsClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), Socket)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, path) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return podsv1alpha1.NewPodsClient(conn)
}

func update(r *Roster, name string, version int, phase corev1.PodPhase) {
	r.Update(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name), ResourceVersion: fmt.Sprint(version)}}, &corev1.PodStatus{Phase: phase})
}

// picture is a pod on the wire: "name phase".
func picture(t *testing.T, data []byte) string {
	t.Helper()
	var p corev1.Pod
	if err := p.Unmarshal(data); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", p.Name, p.Status.Phase))
}

func TestQuestions(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := New(tally.New("n1"))
	c := dial(t, r)
	update(r, "b", 1, corev1.PodPending)
	if _, err := c.ListPods(ctx, &podsv1alpha1.ListPodsRequest{}); err == nil || err.Error() != "rpc error: code = FailedPrecondition desc = Kubelet is initializing" {
		t.Errorf("before all are known: %v", err)
	}
	r.Complete()
	update(r, "a", 1, corev1.PodRunning)
	list, err := c.ListPods(ctx, &podsv1alpha1.ListPodsRequest{})
	if err != nil || len(list.GetPods()) != 2 || picture(t, list.GetPods()[0]) != "a Running" || picture(t, list.GetPods()[1]) != "b Pending" {
		t.Errorf("%v, %v", list, err)
	}
	got, err := c.GetPod(ctx, &podsv1alpha1.GetPodRequest{PodUID: "uid-b"})
	if err != nil || picture(t, got.GetPod()) != "b Pending" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.GetPod(ctx, &podsv1alpha1.GetPodRequest{PodUID: "x"}); err == nil || err.Error() != "rpc error: code = NotFound desc = pod with UID x not found" {
		t.Errorf("one that isn't there: %v", err)
	}
}

// TestBegin: a pod of an agent that has just started again is not ready before it was
// looked at.
func TestBegin(t *testing.T) {
	r := New(nil)
	r.Begin(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a"}, Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
		{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue}}}})
	r.Begin(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "b"}})
	pods, _ := r.list()
	if s := pods[0].Status; s.Phase != corev1.PodRunning || s.Conditions[0].Status != corev1.ConditionTrue || s.Conditions[1].Status != corev1.ConditionFalse || s.Conditions[1].Reason != "ContainersNotReady" {
		t.Errorf("%+v", s)
	}
	if s := pods[1].Status; s.Phase != corev1.PodPending {
		t.Errorf("%+v", s)
	}
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := New(tally.New("n1"))
	r.Complete()
	update(r, "a", 1, corev1.PodPending)
	watch, err := dial(t, r).WatchPods(ctx, &podsv1alpha1.WatchPodsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		e, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(e.GetType().String() + " " + picture(t, e.GetPod())); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	expect("ADDED a Pending")
	expect("INITIAL_SYNC_COMPLETE")
	update(r, "a", 1, corev1.PodRunning)
	update(r, "a", 1, corev1.PodRunning) // nothing new
	update(r, "b", 2, corev1.PodPending)
	r.Remove("uid-a")
	r.Remove("uid-a") // known no more
	r.Remove("uid-c") // never known
	update(r, "b", 3, corev1.PodPending)
	for _, want := range []string{"MODIFIED a Running", "ADDED b Pending", "DELETED a", "MODIFIED b Pending"} {
		expect(want)
	}
}

// TestSlowWatcher: who doesn't read is let go, and everybody else goes on.
func TestSlowWatcher(t *testing.T) {
	r := New(tally.New("n1"))
	r.Complete()
	_, events, stop, _ := r.watch()
	for i := range maxBacklog + 2 {
		update(r, "a", i, corev1.PodPending)
	}
	n := 0
	for range events { // it ends, so it was closed
		n++
	}
	if n != maxBacklog || len(r.watchers) != 0 {
		t.Errorf("%d events, %d watchers", n, len(r.watchers))
	}
	stop()
}
