package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// Limits of a run.
const (
	// accountWait is how long a new namespace may take to get its service account.
	accountWait = 10 * time.Second
	// removeWait is how long --rm waits until the pod has gone.
	removeWait = 30 * time.Second
	// patience is how many signals it takes until the container is killed.
	patience = 3
	// doubtWait is how long something may go on that will likely pass.
	doubtWait = 3 * time.Second
)

// running is one sampan run. Its loop owns everything in it.
type running struct {
	*server
	program  Program
	settings *Settings
	flags    runFlags
	image    string
	command  []string
	pod      *corev1.Pod
	// labelled are paths of this machine and their SELinux levels: see podPlace.
	labelled map[string]string

	in          io.Reader
	out, errOut io.Writer
	// shown and shownErr are where the container's outputs go, leave the keys that leave
	// its terminal.
	shown, shownErr io.Writer
	leave           []byte
	// joined: it ran before we came, and what it printed until then is no matter of ours.
	joined bool

	signals chan os.Signal
	// unread: whoever reads what we show has gone.
	unread chan struct{}
	// asked is how many signals have asked for the end.
	asked int
	// attached is how many starts of the container we have joined, told of how many all
	// that was printed has been shown; done tells that the stream under way has ended.
	attached, told int
	done           <-chan streamed
	// joinOne joins the streams of one run of the container; joinRun where it is nil.
	joinOne joiner
	// broken is why a stream ended early; lost fires when the run it is of goes on.
	broken error
	lost   <-chan time.Time
	// doubt fires when what keeps the container from starting has not passed.
	doubt  <-chan time.Time
	waited bool
	// limitsTold: what --ulimit could not give has been said.
	limitsTold bool
	// starting is the container until it runs.
	starting *starting
	// cleaned: the pod has been removed, as far as that could be done.
	cleaned bool
}

// run makes the pod and stays with it.
func (r *running) run(ctx context.Context) error {
	node, err := r.localNode(ctx)
	if err != nil {
		return failedToRun(err)
	}
	if err := r.ready(ctx, node); err != nil {
		if ctx.Err() != nil {
			return &ExitError{Code: signalCode(syscall.SIGINT)}
		}
		return failedToRun(err)
	}
	ctx, stop := r.listen(ctx)
	defer stop()
	if err := r.written(func() error { return r.create(ctx) }); err != nil {
		return failedToRun(err)
	}
	if r.flags.gated {
		_, err := fmt.Fprintln(r.out, r.pod.Name)
		return err
	}
	err = r.stay(ctx)
	switch {
	case errors.Is(err, errDetached):
		return r.left(ctx, err)
	case r.flags.remove && !r.flags.detach:
		r.clean(ctx)
	}
	return err
}

// listen takes signals for the container: from here on they do not end ctx.
func (r *running) listen(ctx context.Context) (context.Context, func()) {
	r.signals = make(chan os.Signal, patience)
	signal.Notify(r.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	// Sockets bring this one too: who reads us has gone when a write to our outputs says so.
	signal.Ignore(syscall.SIGPIPE)
	r.unread = make(chan struct{}, 1)
	return context.WithoutCancel(ctx), func() {
		signal.Stop(r.signals)
		signal.Reset(syscall.SIGPIPE)
	}
}

// left is the end of a run whose container runs on.
func (r *running) left(ctx context.Context, why error) error {
	var err error
	if r.flags.remove {
		err = r.removeLater(ctx)
	}
	if err == nil && errors.Is(why, errUnread) {
		return &ExitError{Code: signalCode(syscall.SIGPIPE), Err: fmt.Errorf("nobody reads what %s prints; it runs on: sampan stop %s ends it", r.pod.Name, r.pod.Name)}
	}
	return err
}

// removeLater has the cluster remove a container that we leave alone, once it has ended.
func (r *running) removeLater(ctx context.Context) error {
	at := target.Of(client.Pods.GroupVersionResource, r.pod.Namespace).Object(r.pod.Name)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"true"}}}`, removeAnnotation)
	_, err := client.Pods.Patch(ctx, r, at, client.Patch{Type: types.MergePatchType, Data: []byte(patch)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// create makes the pod. The service account of a namespace comes a moment after it.
func (r *running) create(ctx context.Context) error {
	deadline := time.Now().Add(accountWait)
	for {
		made, err := client.Pods.Create(ctx, r, r.pod)
		switch {
		case err == nil:
			r.pod = made
			return nil
		case apierrors.IsAlreadyExists(err) && r.flags.name == "":
			r.rename(madeUpName())
		case apierrors.IsAlreadyExists(err):
			return fmt.Errorf("the name %q is taken: choose another, or sampan rm %s", r.pod.Name, r.pod.Name)
		case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "serviceaccount") || time.Now().After(deadline):
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case s := <-r.signals:
			return &ExitError{Code: signalCode(s)}
		}
	}
}

// rename takes another made-up name.
func (r *running) rename(name string) {
	r.pod.Name, r.pod.Labels[runLabel], r.pod.Spec.Containers[0].Name = name, name, name
}

// stay waits for the container, shows what it prints, and gives its exit code.
func (r *running) stay(ctx context.Context) error {
	pods := followPod(ctx, r, r.pod)
	defer pods.stop()
	state := look(r.pod)
	r.starting = r.server.starting(r.pod, r.errOut)
	defer r.starting.end()
	for {
		r.starting.see(r.pod, state)
		r.tellCut(ctx, state)
		r.suspect(state)
		switch {
		case state.doomed != "" && state.mayPass && !r.waited:
			if r.doubt == nil {
				r.doubt = time.After(doubtWait)
			}
		case state.doomed != "":
			said := state.doomed
			if r.pod.Spec.NodeName == "" {
				said = r.unplaced(ctx, r.pod, said)
			}
			if !r.joined {
				r.clean(ctx)
			}
			return &ExitError{Code: exitFailed, Err: errors.New(said)}
		case r.flags.detach && (state.running || state.ended):
			_, err := fmt.Fprintln(r.out, r.pod.Name)
			return err
		case state.ended && r.done == nil:
			return r.end(ctx, state)
		case state.running && !r.flags.detach && state.restarts >= r.attached && r.done == nil:
			// One stream at a time: the one before may have joined this start already.
			if err := r.catchUp(ctx, state, state.restarts); err != nil {
				return err
			}
			r.attached = state.restarts + 1
			r.attach(ctx)
		}
		var err error
		if state, err = r.next(ctx, pods, state); err != nil {
			return err
		}
	}
}

// next waits for whatever happens next.
func (r *running) next(ctx context.Context, pods *podFollower, state podState) (podState, error) {
	select {
	case change, ok := <-pods.changes:
		if !ok {
			return state, pods.err
		}
		r.pod = change.pod
		state = look(change.pod)
		state.ended = state.ended || change.gone
		return state, nil
	case s := <-r.done:
		r.done = nil
		return state, r.parted(s, state)
	case <-r.lost: // the stream has ended long ago, and the run has not
		return state, fmt.Errorf("connection to %s lost: %w; it runs on: sampan attach %s", r.pod.Name, r.broken, r.pod.Name)
	case <-r.doubt:
		r.waited = true
		return state, nil
	case <-r.starting.moment:
		if r.starting.moment = nil; state.doomed == "" { // else it is told at the end, which is near
			r.starting.wonder(ctx)
		}
		return state, nil
	case e := <-r.starting.events:
		r.starting.hear(e)
		return state, nil
	case <-r.starting.late:
		state.doomed, state.mayPass = r.starting.failure, false
		return state, nil
	case <-r.unread:
		return state, errUnread
	case s := <-r.signals:
		return state, r.signal(ctx, s, state)
	}
}

// end gives the exit code, after all that the container printed.
func (r *running) end(ctx context.Context, state podState) error {
	if err := r.catchUp(ctx, state, state.restarts+1); err != nil {
		return err
	}
	if state.code == 0 {
		return nil
	}
	exit := &ExitError{Code: state.code}
	if state.why != "" {
		exit.Err = errors.New(state.why)
	}
	return exit
}

// signal brings a signal to the container; the third that asks it to end kills it.
// Where we cannot reach the process, asking to end is deleting the pod.
func (r *running) signal(ctx context.Context, s os.Signal, state podState) error {
	number, _ := s.(syscall.Signal)
	ends := number != syscall.SIGUSR1 && number != syscall.SIGUSR2
	if !r.flags.sigProxy && state.started {
		if ends {
			return errDetached // it runs on
		}
		return nil
	}
	if !state.started {
		if !ends {
			return nil
		}
		r.clean(ctx)
		return &ExitError{Code: signalCode(s)}
	}
	if ends {
		r.asked++
	}
	if r.asked >= patience && r.joined {
		return errDetached // it is not ours to remove
	}
	if r.asked >= patience {
		if err := r.delete(ctx, 1); err != nil {
			return err
		}
		return &ExitError{Code: exitKilled}
	}
	err := errors.ErrUnsupported
	if r.program.Signal != nil {
		err = r.program.Signal(ctx, *r.settings, string(r.pod.UID), number)
	}
	if err == nil || !ends || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if r.joined {
		return fmt.Errorf("%s: %w", r.pod.Name, errOutOfReach)
	}
	return r.delete(ctx, r.flags.stopTimeout)
}

// delete asks for the pod's end; it is no error that it has come.
func (r *running) delete(ctx context.Context, grace int64) error {
	uid := r.pod.UID
	err := client.Pods.Delete(ctx, r, r.pod.Namespace, r.pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// clean removes the pod; what goes wrong with it does not hide the exit code.
func (r *running) clean(ctx context.Context) {
	if r.cleaned {
		return
	}
	r.cleaned = true
	if err := errors.Join(r.remove(ctx), r.settings.dropAnonymous(ctx, r.pod)); err != nil {
		fmt.Fprintf(r.errOut, "sampan: remove %s: %v\n", r.pod.Name, err)
	}
}

// remove deletes the pod and waits until its name is free.
func (r *running) remove(ctx context.Context) error {
	pods := followPod(ctx, r, r.pod)
	defer pods.stop()
	if err := r.delete(ctx, r.flags.stopTimeout); err != nil {
		return err
	}
	if !look(r.pod).started { // what keeps it from starting may keep it from going
		return pods.awaitEnd(doubtWait)
	}
	return pods.awaitEnd(removeWait)
}

// signalCode is what a shell makes of an end by a signal.
func signalCode(s os.Signal) int {
	number, _ := s.(syscall.Signal)
	return 128 + int(number)
}
