package seeded

import (
	"context"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// life is one run of a component, from its start to its end or crash.
type life struct {
	who  string
	gone chan struct{}
	stop context.CancelFunc
	once sync.Once
	done chan struct{}
}

func newLife(who string, stop context.CancelFunc) *life {
	return &life{who: who, gone: make(chan struct{}), stop: stop, done: make(chan struct{})}
}

// kill ends it without a chance to do anything more: its line is dead first.
func (l *life) kill() { l.once.Do(func() { close(l.gone); l.stop() }) }

// line is a component's connection: everything on it waits at the gate.
type line struct {
	client.Transport
	gate *gate
	life *life
	// as is the component's name within its life, "" when it is alone.
	as    string
	acked func(t target.Target, obj runtime.Object)
}

// ask carries one request, or what the seed makes of it.
func (l *line) ask(ctx context.Context, a act, verb string, t target.Target, do func(context.Context) (runtime.Object, error)) (runtime.Object, error) {
	v, err := l.gate.enter(ctx, l.life, deed{act: a, by: l.as, verb: verb, at: t})
	if err != nil {
		return nil, err
	}
	switch v {
	case crash:
		l.life.kill()
		return nil, errGone
	case refuse:
		return nil, apierrors.NewInternalError(fmt.Errorf("the seed refuses to %s %s", verb, t))
	}
	obj, err := do(context.WithoutCancel(ctx)) // the server has it now
	if err == nil && a == writing {
		l.acked(t, obj)
	}
	if v == lose && err == nil {
		return nil, apierrors.NewTimeoutError("the seed lost the answer", 0)
	}
	return obj, err
}

// isStory says whether something is an event: they are told to people, and nobody
// decides by them.
func isStory(t target.Target) bool { return t.Resource.Resource == "events" }

// Raw implements what client.Raw asks for.
func (l *line) Raw(ctx context.Context, path string) (data []byte, err error) {
	where, _, _ := strings.Cut(path, "?")
	if _, err := l.gate.enter(ctx, l.life, deed{act: reading, by: l.as, verb: "ask", more: where}); err != nil {
		return nil, err
	}
	return client.Raw(ctx, l.Transport, path)
}

func (l *line) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	return l.ask(ctx, reading, "get", t, func(ctx context.Context) (runtime.Object, error) { return l.Transport.Get(ctx, t, opts) })
}

func (l *line) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	return l.ask(ctx, reading, "list", t, func(ctx context.Context) (runtime.Object, error) { return l.Transport.List(ctx, t, opts) })
}

func (l *line) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	if isStory(t) {
		return obj, nil
	}
	named := t
	if m, ok := obj.(kinds.Object); ok && named.Name == "" {
		named.Name = m.GetName() + m.GetGenerateName()
	}
	return l.ask(ctx, writing, "create", named, func(ctx context.Context) (runtime.Object, error) { return l.Transport.Create(ctx, t, obj, opts) })
}

func (l *line) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	return l.ask(ctx, writing, "update", t, func(ctx context.Context) (runtime.Object, error) { return l.Transport.Update(ctx, t, obj, opts) })
}

func (l *line) Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	if isStory(t) {
		return &corev1.Event{}, nil
	}
	return l.ask(ctx, writing, "patch", t, func(ctx context.Context) (runtime.Object, error) { return l.Transport.Patch(ctx, t, pt, data, opts) })
}

func (l *line) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	_, err := l.ask(ctx, writing, "delete", t, func(ctx context.Context) (runtime.Object, error) { return nil, l.Transport.Delete(ctx, t, opts) })
	return err
}

func (l *line) DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	_, err := l.ask(ctx, writing, "deletecollection", t, func(ctx context.Context) (runtime.Object, error) {
		return nil, l.Transport.DeleteCollection(ctx, t, opts, list)
	})
	return err
}

// Watch opens a watch whose events wait at the gate one by one. The state that it
// begins with comes at once.
func (l *line) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	d := deed{act: reading, by: l.as, verb: "watch", at: t, more: opts.FieldSelector + opts.LabelSelector}
	if _, err := l.gate.enter(ctx, l.life, d); err != nil {
		return nil, err
	}
	w, err := l.Transport.Watch(ctx, t, opts)
	if err != nil {
		return nil, err
	}
	d.act, d.verb = hearing, "hear"
	h := &hearer{line: l, deed: d, from: w, out: make(chan watch.Event), stopped: make(chan struct{}),
		state: opts.SendInitialEvents != nil && *opts.SendInitialEvents, quiet: t.Resource.Resource == "leases"}
	go h.run(ctx)
	return h, nil
}

// hearer is a watch behind the gate.
type hearer struct {
	line    *line
	deed    deed
	from    watch.Interface
	out     chan watch.Event
	stopped chan struct{}
	once    sync.Once
	// state is true until the state that the watch begins with has been told.
	state bool
	// quiet is true for what is heard too often to be told apart: heartbeats.
	quiet bool
}

func (h *hearer) ResultChan() <-chan watch.Event { return h.out }
func (h *hearer) Stop()                          { h.once.Do(func() { close(h.stopped); h.from.Stop() }) }

func (h *hearer) run(ctx context.Context) {
	defer close(h.out)
	defer h.from.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	for e := range h.from.ResultChan() {
		if !h.deliver(ctx, e) {
			return
		}
	}
}

// deliver passes one event on and says whether the watch goes on.
func (h *hearer) deliver(ctx context.Context, e watch.Event) bool {
	if h.state || h.quiet || e.Type == watch.Bookmark || e.Type == watch.Error {
		if o, ok := e.Object.(metav1.Object); ok && o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
			h.state = false
		}
		return h.send(e)
	}
	v, err := h.line.gate.enter(ctx, h.line.life, h.deed)
	if err != nil {
		return false
	}
	switch v {
	case cut:
		return false
	case expire:
		status := apierrors.NewResourceExpired("the seed lets the watch expire").Status()
		h.send(watch.Event{Type: watch.Error, Object: &status})
		return false
	case twice:
		if !h.send(e) {
			return false
		}
	}
	return h.send(e)
}

func (h *hearer) send(e watch.Event) bool {
	select {
	case h.out <- e:
		return true
	case <-h.stopped:
		return false
	case <-h.line.life.gone:
		return false
	}
}
