package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// streamed is how a stream has ended.
type streamed struct {
	printed bool
	err     error
}

// attach joins the container's streams, of its last run alone: another may have begun since
// we heard of that, and what both print is to come in order.
func (r *running) attach(ctx context.Context) {
	done := make(chan streamed, 1)
	r.done = done
	at := podName{namespace: r.pod.Namespace, name: r.pod.Name, container: r.pod.Spec.Containers[0].Name}
	ends := stdio{out: &readBy{r.shown, r.unread}, errOut: &readBy{r.shownErr, r.unread}, tty: r.flags.tty, leave: r.leave}
	if r.flags.interactive {
		ends.in = r.in
	}
	join, last := r.joinOne, r.attached-1
	if join == nil {
		join = r.joinRun
	}
	go func() {
		printed, err := join(ctx, at, last, ends)
		done <- streamed{printed, err}
	}()
}

// joiner joins a run of a container, which is how often that was restarted before it. It
// says whether anything was printed.
type joiner func(ctx context.Context, pod podName, run int, ends stdio) (printed bool, err error)

// joinRun is the joiner that goes through the cluster. A node refuses to join another run
// than the one that is asked for; nodes of others join whatever there is.
func (s *server) joinRun(ctx context.Context, pod podName, run int, ends stdio) (bool, error) {
	one := *s
	one.rest = rest.CopyConfig(s.rest)
	one.rest.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return headed{next: next, name: "Sampan-Attach-Run", value: strconv.Itoa(run)}
	})
	return one.stream(ctx, pod, "attach", url.Values{"container": {pod.container}}, ends)
}

// parted takes note of how a stream has ended.
func (r *running) parted(s streamed, state podState) error {
	if s.printed {
		r.told = r.attached
	}
	switch {
	case s.err == nil || state.ended:
	case errors.Is(s.err, errDetached) || apierrors.IsForbidden(s.err):
		return s.err
	case !apierrors.IsBadRequest(s.err) && !apierrors.IsNotFound(s.err): // else the run has ended, says its node
		r.broken = s.err
	}
	return nil
}

// suspect doubts a stream that has broken while its run, as far as we know, goes on. When
// that ends, the stream was to end too.
func (r *running) suspect(state podState) {
	switch {
	case !state.running || state.restarts >= r.attached:
		r.broken, r.lost = nil, nil
	case r.broken != nil && r.lost == nil:
		r.lost = time.After(doubtWait)
	}
}

// catchUp shows what the container printed in so many of its runs, as far as no stream
// has shown that: one may have ended before it could be joined. A node keeps the last two.
func (r *running) catchUp(ctx context.Context, state podState, runs int) error {
	for ; r.told < runs; r.told++ {
		behind := state.restarts - r.told
		if behind > 1 {
			fmt.Fprintf(r.errOut, "sampan: what %s printed in its run %d is lost: it has begun anew too fast\n", r.pod.Name, r.told+1)
			continue
		}
		at := podName{namespace: r.pod.Namespace, name: r.pod.Name, container: r.pod.Spec.Containers[0].Name}
		err := r.logs(ctx, at, logQuery{tail: -1, previous: behind == 1}, r.shown, r.shownErr)
		switch {
		case err == nil || errors.Is(err, syscall.EPIPE):
		case behind == 1:
			fmt.Fprintf(r.errOut, "sampan: what %s printed in its run %d is lost: %v\n", r.pod.Name, r.told+1, err)
		case state.started:
			return fmt.Errorf("what %s printed: %w", r.pod.Name, err)
		}
	}
	return nil
}
