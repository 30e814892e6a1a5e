package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/internal/target"
)

// stagedNode is a node with a container that prints "run N" in each of its runs. What
// follows the container hears of a run when the test says so, however far that is by then.
type stagedNode struct {
	client.Transport
	events *watch.FakeWatcher
	// now is the run that is there.
	now int
	// gone: the node has no logs of runs before this one.
	gone bool
}

func (n *stagedNode) Watch(ctx context.Context, _ target.Target, _ metav1.ListOptions) (watch.Interface, error) {
	context.AfterFunc(ctx, n.events.Stop)
	return n.events, nil
}

// Get is asked when the watch has ended, which it does with whoever follows.
func (n *stagedNode) Get(ctx context.Context, _ target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	return nil, context.Cause(ctx)
}

// RoundTrip answers for the log of the run that is there, or of the one before it.
func (n *stagedNode) RoundTrip(r *http.Request) (*http.Response, error) {
	run, code := n.now, http.StatusOK
	if r.URL.Query().Get("previous") != "" {
		run--
	}
	if run < 0 || n.gone && run < n.now {
		code = http.StatusBadRequest
	}
	text := fmt.Sprintf("run %d\n", run)
	if r.URL.Query().Get("stream") == "Stderr" {
		text = ""
	}
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// tell tells the follower that a run goes on, or that the pod has ended with it.
func (n *stagedNode) tell(run int, phase corev1.PodPhase) {
	synctest.Wait()
	n.events.Modify(stagedPod(run, phase))
	synctest.Wait()
}

func stagedPod(run int, phase corev1.PodPhase) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	p.Status.Phase = phase
	st := corev1.ContainerStatus{RestartCount: int32(run)} //nolint:gosec // small
	switch phase {
	case corev1.PodRunning:
		st.State.Running = &corev1.ContainerStateRunning{}
	case corev1.PodFailed:
		st.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 9}
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{st}
	return p
}

// Each run's output is shown once and in order, whenever the container is joined.
func TestRunsAreShownOnce(t *testing.T) {
	refused := func(int) error { return apierrors.NewBadRequest("it has ended") }
	cut := func(int) error { return errors.New("connection reset") }
	joined := func(int) error { return nil }
	for name, c := range map[string]struct {
		// join is how each attempt to join a run ends; play is what becomes of the container.
		join func(run int) error
		gone bool
		play func(n *stagedNode)
		want string
	}{
		"both are joined": {join: joined, play: func(n *stagedNode) {
			n.tell(0, corev1.PodRunning)
			n.now = 1
			n.tell(1, corev1.PodRunning)
			n.tell(1, corev1.PodFailed)
		}, want: "run 0\nrun 1\n"},
		"the first has ended, and the next goes on for long": {join: func(run int) error { return []error{cut(0), nil}[run] }, play: func(n *stagedNode) {
			n.tell(0, corev1.PodRunning)
			n.now = 1
			n.tell(1, corev1.PodRunning)
			time.Sleep(10 * doubtWait)
			n.tell(1, corev1.PodFailed)
		}, want: "run 0\nrun 1\n"},
		"the first has ended, and the next begins late": {join: func(run int) error { return []error{cut(0), nil}[run] }, play: func(n *stagedNode) {
			n.tell(0, corev1.PodRunning)
			n.tell(0, corev1.PodPending)
			time.Sleep(10 * doubtWait)
			n.now = 1
			n.tell(1, corev1.PodRunning)
			n.tell(1, corev1.PodFailed)
		}, want: "run 0\nrun 1\n"},
		"the node is ahead of what is heard, for long": {join: refused, play: func(n *stagedNode) {
			n.tell(0, corev1.PodRunning)
			n.now = 1
			time.Sleep(10 * doubtWait)
			n.tell(1, corev1.PodRunning)
			n.tell(1, corev1.PodFailed)
		}, want: "run 0\nrun 1\n"},
		"all is over when it is heard of": {join: refused, play: func(n *stagedNode) {
			n.now = 1
			n.tell(1, corev1.PodFailed)
		}, want: "run 0\nrun 1\n"},
		"the node has no more of the first": {join: refused, gone: true, play: func(n *stagedNode) {
			n.now = 1
			n.tell(1, corev1.PodFailed)
		}, want: "sampan: what c printed in its run 1 is lost: the API server answered 400 Bad Request\nrun 1\n"},
		"too many have gone by": {join: refused, play: func(n *stagedNode) {
			n.now = 2
			n.tell(2, corev1.PodFailed)
		}, want: "sampan: what c printed in its run 1 is lost: it has begun anew too fast\nrun 1\nrun 2\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &stagedNode{events: watch.NewFake(), gone: c.gone}
			var out bytes.Buffer
			r := &running{
				server: &server{Transport: n, records: explain.Server{URL: "http://node", Client: &http.Client{Transport: n}}},
				pod:    stagedPod(0, corev1.PodPending), out: &out, errOut: &out, shown: &out, shownErr: &out,
				joinOne: func(_ context.Context, _ podName, run int, ends stdio) (bool, error) {
					if err := c.join(run); err != nil {
						return false, err
					}
					_, err := fmt.Fprintf(ends.out, "run %d\n", run)
					return true, err
				},
			}
			ended := make(chan error, 1)
			go func() { ended <- r.stay(t.Context()) }()
			c.play(n)
			var exit *ExitError
			if err := <-ended; !errors.As(err, &exit) || exit.Code != 9 || exit.Err != nil || out.String() != c.want {
				t.Errorf("%s: %v after %q, want %q", name, err, out.String(), c.want)
			}
		})
	}
}

// A stream that breaks while its run goes on is told, and so is that the container runs on.
func TestBrokenStreamIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &stagedNode{events: watch.NewFake()}
		r := &running{
			server: &server{Transport: n}, pod: stagedPod(0, corev1.PodRunning), out: io.Discard, errOut: io.Discard, shown: io.Discard, shownErr: io.Discard,
			joinOne: func(context.Context, podName, int, stdio) (bool, error) {
				return false, errors.New("connection reset")
			},
		}
		if err := r.stay(t.Context()); err == nil || !strings.Contains(err.Error(), "connection to c lost: connection reset; it runs on") {
			t.Errorf("%v", err)
		}
	})
}
