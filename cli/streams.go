package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// stdio is what a person's end of a container's streams is.
type stdio struct {
	in          io.Reader
	out, errOut io.Writer
	tty         bool
	// leave are the keys that leave the container alone, as in docker; none for never.
	leave []byte
}

// errDetached: the person has left a terminal by the keys for that.
var errDetached = errors.New("detached")

// errUnread: whoever reads what we print has gone, as head does.
var errUnread = fmt.Errorf("nobody reads it: %w", errDetached)

// stream runs attach or exec of a pod until it ends. A command's exit code other
// than 0 comes back as an ExitError. It says whether anything was printed.
func (s *server) stream(ctx context.Context, pod podName, verb string, q url.Values, io stdio) (printed bool, err error) {
	io.ask(q, "stdin", "stdout", "stderr")
	at, err := url.Parse(s.records.URL + pod.path() + "/" + verb + "?" + q.Encode())
	if err != nil {
		return false, err
	}
	executor, err := s.executor(at)
	if err != nil {
		return false, err
	}
	return io.join(ctx, executor)
}

// ask puts the streams that are wanted into a query, by their names there.
func (io stdio) ask(q url.Values, in, out, errOut string) {
	for name, is := range map[string]bool{in: io.in != nil, out: true, errOut: !io.tty, "tty": io.tty} {
		if is {
			q.Set(name, "true")
		}
	}
}

// join copies between the person's end and the container's.
func (io stdio) join(ctx context.Context, executor remotecommand.Executor) (printed bool, err error) {
	// What the library says of a line that was cut off is nothing to the person who
	// cut it.
	ctx, cancel := context.WithCancelCause(klog.NewContext(ctx, klog.Logger{}))
	defer cancel(nil)
	out := &noticed{w: io.out}
	o := remotecommand.StreamOptions{Stdin: io.in, Stdout: out, Tty: io.tty}
	if !io.tty {
		o.Stderr = &noticed{w: io.errOut, seen: &out.any}
	}
	if io.tty && io.in != nil {
		restore, err := rawTerminal()
		if err != nil {
			return false, err
		}
		defer restore()
		if len(io.leave) > 0 {
			o.Stdin = &detachKeys{r: io.in, keys: io.leave, leave: func() { cancel(errDetached) }}
		}
	}
	if io.tty {
		sizes := watchSize()
		defer sizes.stop()
		o.TerminalSizeQueue = sizes
	}
	err = executor.StreamWithContext(ctx, o)
	if errors.Is(context.Cause(ctx), errDetached) {
		return out.any.Load(), errDetached
	}
	var code utilexec.CodeExitError
	if errors.As(err, &code) {
		return out.any.Load(), &ExitError{Code: code.Code}
	}
	return out.any.Load(), err
}

// executor speaks WebSocket, or SPDY with servers and proxies that cannot.
func (s *server) executor(at *url.URL) (remotecommand.Executor, error) {
	first, err := remotecommand.NewWebSocketExecutor(s.rest, http.MethodGet, at.String())
	if err != nil {
		return nil, err
	}
	second, err := remotecommand.NewSPDYExecutor(s.rest, http.MethodPost, at)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(first, second, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// noticed notes that something has been written.
type noticed struct {
	w    io.Writer
	any  atomic.Bool
	seen *atomic.Bool
}

func (n *noticed) Write(p []byte) (int, error) {
	if len(p) > 0 {
		n.any.Store(true)
		if n.seen != nil {
			n.seen.Store(true)
		}
	}
	return n.w.Write(p)
}

// readBy says when whoever reads what is written has gone, as head does.
type readBy struct {
	w    io.Writer
	gone chan<- struct{}
}

// Write implements io.Writer.
func (r *readBy) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		select {
		case r.gone <- struct{}{}:
		default: // it is known
		}
	}
	return n, err
}

// rawTerminal gives every key to the container.
func rawTerminal() (restore func(), err error) {
	fd := int(os.Stdin.Fd()) //nolint:gosec // a descriptor is small
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return func() { _ = term.Restore(fd, before) }, nil // it may be gone
}

// sizeWatch tells the size of the terminal, now and whenever it changes.
type sizeWatch struct {
	changed chan os.Signal
	once    sync.Once
	first   bool
}

func watchSize() *sizeWatch {
	w := &sizeWatch{changed: make(chan os.Signal, 1), first: true}
	signal.Notify(w.changed, syscall.SIGWINCH)
	return w
}

func (w *sizeWatch) stop() {
	w.once.Do(func() {
		signal.Stop(w.changed)
		close(w.changed)
	})
}

// Next implements remotecommand.TerminalSizeQueue.
func (w *sizeWatch) Next() *remotecommand.TerminalSize {
	for {
		if !w.first {
			if _, ok := <-w.changed; !ok {
				return nil
			}
		}
		w.first = false
		for _, f := range []*os.File{os.Stdout, os.Stdin} {
			width, height, err := term.GetSize(int(f.Fd())) //nolint:gosec // a descriptor is small
			if err == nil && width > 0 && height > 0 {
				return &remotecommand.TerminalSize{Width: uint16(min(width, 1<<16-1)), Height: uint16(min(height, 1<<16-1))} //nolint:gosec // bounded
			}
		}
	}
}

// podName is a pod, and the container in it that is meant.
type podName struct{ namespace, name, container string }

func (p podName) path() string {
	return "/api/v1/namespaces/" + url.PathEscape(p.namespace) + "/pods/" + url.PathEscape(p.name)
}

// logQuery says what of a log is wanted.
type logQuery struct {
	follow, timestamps bool
	// previous: of the run before this one.
	previous bool
	// tail is how many lines; below zero, all.
	tail         int64
	since, until time.Time
}

// values are the query of a request.
func (l logQuery) values(container string) url.Values {
	q := url.Values{}
	if container != "" {
		q.Set("container", container)
	}
	if l.follow {
		q.Set("follow", "true")
	}
	if l.previous {
		q.Set("previous", "true")
	}
	if l.timestamps || !l.until.IsZero() {
		q.Set("timestamps", "true")
	}
	if l.tail >= 0 && l.until.IsZero() { // else the last ones are counted here
		q.Set("tailLines", fmt.Sprint(l.tail))
	}
	if !l.since.IsZero() {
		q.Set("sinceTime", l.since.UTC().Format(time.RFC3339))
	}
	return q
}

// logs copies a container's log: each stream to its own end, or both in their
// order when the ends are one. Last lines are counted over both.
func (s *server) logs(ctx context.Context, pod podName, l logQuery, out, errOut io.Writer) error {
	if l.tail >= 0 && !l.until.IsZero() {
		last := &lastLines{most: l.tail}
		err := s.log(ctx, pod, l.values(pod.container), l.ending(last))
		return errors.Join(err, last.writeTo(out))
	}
	if sameFile(out, errOut) || l.tail >= 0 {
		return s.log(ctx, pod, l.values(pod.container), l.ending(out))
	}
	g, ctx := errgroup.WithContext(ctx)
	for stream, to := range map[string]io.Writer{"Stdout": out, "Stderr": errOut} {
		q := l.values(pod.container)
		q.Set("stream", stream)
		g.Go(func() error { return s.log(ctx, pod, q, l.ending(to)) })
	}
	return g.Wait()
}

func (s *server) log(ctx context.Context, pod podName, q url.Values, to io.Writer) error {
	answer, err := s.open(ctx, pod.path()+"/log?"+q.Encode())
	if err != nil {
		return err
	}
	defer answer.Close()
	_, err = io.Copy(to, answer)
	if errors.Is(err, errLate) {
		err = nil
	}
	return err
}

// open asks for a path; a refusal is an error. The caller closes the answer.
func (s *server) open(ctx context.Context, path string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.records.URL+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := s.records.Client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(answer.Body, maxRefusal)) // a text for a person, or none
	return nil, refused(answer.StatusCode, raw)
}

// maxRefusal bounds what is read of an answer that is none.
const maxRefusal = 64 << 10

// refused is an API server's refusal as an error.
func refused(code int, raw []byte) error {
	var status metav1.Status
	if err := json.Unmarshal(raw, &status); err == nil && status.Message != "" {
		return &apierrors.StatusError{ErrStatus: status}
	}
	return fmt.Errorf("the API server answered %d %s", code, http.StatusText(code))
}

func sameFile(a, b io.Writer) bool {
	fa, ok1 := a.(*os.File)
	fb, ok2 := b.(*os.File)
	if !ok1 || !ok2 {
		return a == b
	}
	ia, err1 := fa.Stat()
	ib, err2 := fb.Stat()
	return err1 == nil && err2 == nil && os.SameFile(ia, ib)
}
